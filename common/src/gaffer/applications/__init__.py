"""Parts of Gaffer's own applications: console lines and the requests of webhooks."""
