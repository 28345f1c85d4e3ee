"""What an app declares: policies and settings, as frozen pydantic models that check themselves at construction."""
