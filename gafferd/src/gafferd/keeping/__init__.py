"""gafferd below its keeper (`gafferd/keeper.py`): starting it, the connection to it, the sockets that it keeps."""
