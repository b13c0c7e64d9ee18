"""Pages that belong to no single app."""

from django.contrib.auth.views import LogoutView
from django.urls import path

from opscenter import views

urlpatterns = [
    path("", views.home, name="home"),
    path("first-steps", views.steps, name="first-steps"),
    path("login", views.login, name="login"),
    path("logout", LogoutView.as_view(), name="logout"),
    path("workspaces/<int:pk>/pipelines", views.pipelines, name="pipelines"),
]
