"""What runs networks of leaky integrate-and-fire neurons: Norse, and our own engines."""
