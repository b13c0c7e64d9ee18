"""Pages that belong to no single app."""

from django.urls import URLPattern

urlpatterns: list[URLPattern] = []
