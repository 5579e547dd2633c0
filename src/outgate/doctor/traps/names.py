"""The names of the mail service and its OAuth provider: PIDs, properties, and how their secrets are read.

Standards: the vendor's `com.day.cq.mailer.DefaultMailService` and `OAuthConfigurationProviderImpl`.
Promises: pure.
Not here: what the values must be (`doctor.traps.mail`, `doctor.traps.oauth`).
"""

from outgate.mailer import oauth
from outgate.mailer.config import NAMES, PID
from outgate.mailer.sending.target import TUNNEL

MAIL = PID
OAUTH = oauth.PID

MAIL_PROPERTIES = NAMES
MAIL_SWITCHES = NAMES[5:]  # true or false
OAUTH_PROPERTIES = oauth.PROPERTIES

TUNNEL_VARIABLE = "AEM_PROXY_HOST"
HOST = f"$[env:{TUNNEL_VARIABLE};default={TUNNEL}]"
USER = "$[env:EMAIL_USERNAME]"
SECRETS = {
    "smtp.password": "$[secret:EMAIL_PASSWORD]",
    "clientSecret": "$[secret:SECRET_SMTP_OAUTH_CLIENT_SECRET]",
    "refreshToken": "$[secret:SECRET_SMTP_OAUTH_REFRESH_TOKEN]",
}
