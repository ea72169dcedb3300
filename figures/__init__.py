"""Pictures drawn from reports, never from models."""
