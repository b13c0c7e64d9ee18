"""The catalog in the admin console: users and who is a member of what. Models and pipelines are made elsewhere."""

from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from unfold.admin import ModelAdmin, TabularInline
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from catalog.models import Membership, User, Workspace
from common.console import ForAdministrators

admin.site.unregister(Group)  # roles are a workspace's memberships


@admin.register(User)
class UserAdmin(ForAdministrators, DjangoUserAdmin, ModelAdmin):
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    ordering = ("email",)
    list_display = ("email", "is_active", "is_superuser", "last_login")
    list_filter = ("is_active", "is_superuser")
    search_fields = ("email",)
    readonly_fields = ("public_id", "last_login", "date_joined")
    fieldsets = (
        (None, {"fields": ("email", "password", "public_id")}),
        (_("May"), {"fields": ("is_active", "is_staff", "is_superuser")}),
        (_("Times"), {"fields": ("last_login", "date_joined")}),
    )
    add_fieldsets = ((None, {"fields": ("email", "usable_password", "password1", "password2")}),)


class MembershipInline(TabularInline):
    model = Membership
    extra = 0

    def get_queryset(self, request: HttpRequest) -> QuerySet[Membership]:
        """With what each is called by."""
        return Membership.objects.select_related("user", "workspace")

    def get_formset(self, request: HttpRequest, obj: Any = None, **kwargs: Any) -> Any:
        """Users are read once, not once a member."""
        formset = super().get_formset(request, obj, **kwargs)
        users = formset.form.base_fields["user"]
        users.choices = list(users.choices)
        return formset


@admin.register(Workspace)
class WorkspaceAdmin(ForAdministrators):
    list_select_related = ("created_by",)
    list_display = ("name", "archived", "created_by", "created_at")
    search_fields = ("name",)
    readonly_fields = ("created_by", "created_at")
    inlines = (MembershipInline,)

    def has_add_permission(self, request: HttpRequest, obj: object = None) -> bool:
        """Workspaces are made in the dashboard, where their maker becomes the owner."""
        return False
