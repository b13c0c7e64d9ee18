"""The page of trials."""

from django.urls import path

from trials import views

app_name = "trials"
urlpatterns = [path("pipeline-versions/<int:pk>/infer", views.infer, name="infer")]
