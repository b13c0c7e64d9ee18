"""`/v1/` of logs: the addresses that the public SDK knows."""

from django.urls import URLPattern, path

from logs.api import topics

urlpatterns: list[URLPattern] = [
    path("api/plateau/get_topic_name", topics.TopicName.as_view(), name="sdk-topic-name"),
    path("logs/topic/<str:topic>", topics.Topic.as_view(), name="sdk-topic"),
    path("logs/topic/<str:topic>/records", topics.TopicRecords.as_view(), name="sdk-topic-records"),
]
