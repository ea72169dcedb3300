"""What the API answers, by what it is about: images, progress, sessions, and how it refuses."""
