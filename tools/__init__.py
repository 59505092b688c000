"""Adapters: what touches the world, one module an adapter."""
