"""Parts of the applications that come with Gaffer: console lines and the posts of webhooks."""
