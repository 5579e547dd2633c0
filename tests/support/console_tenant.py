"""A tenant for the page, with signs in its values that every recipe must quote."""

from __future__ import annotations

import base64
import json
from typing import Any

CLAIMS = base64.urlsafe_b64encode(json.dumps({"client_id": "client-1"}).encode()).decode()
DEV: dict[str, Any] = {
    "submission": "127.0.0.1:2587", "submissions": "127.0.0.1:2465", "ca_file": "/home/o'hara/my \"data\"/ca.pem", "domain": "shop.test",
    "smtp_user": "user01", "smtp_password": "pa$$'\"\\word", "smtp_host_name": "smtp.outgate.test", "api_key": "key", "token": f"h.{CLAIMS}.s",
    "identity_url": "http://127.0.0.1:8025/iam", "event_notifications_url": "http://127.0.0.1:8025/event-notifications",
    "cloud_manager_url": "http://127.0.0.1:8025/cloud-manager", "instance_id": "i", "org_id": "o@x", "program_id": "4", "environment_id": "10",
}  # fmt: skip
