"""Slow, plain, independent implementations written from the specifications; the fast ones are compared with them."""
