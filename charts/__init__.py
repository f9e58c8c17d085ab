"""Heimdall's Helm chart, and what is written from it."""
