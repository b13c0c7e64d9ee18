"""The WSGI application that granian serves."""

import os
import signal

from django.core.wsgi import get_wsgi_application

from opscenter import lifetime

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "opscenter.settings")

# Granian serves from a forked worker on a shared port. One that outlived its main process would go on answering
# beside the restarted server.
lifetime.end_with_parent(signal.SIGKILL)
application = get_wsgi_application()
