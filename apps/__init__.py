"""On-phone-style demos, served from bundles."""

# Its import keeps libraries from reporting home, before any module of the apps imports one.
import pipelines  # noqa: F401
