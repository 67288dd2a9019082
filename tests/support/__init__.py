"""What the tests share.

Programs and hosts

- `daemons`: the installed daemons and commands as subprocesses
- `kept`: a keeper whose gafferd is a small program
- `kept_node`: a gafferd below its keeper, whose processes can be told apart
- `survival`: a gafferd below its keeper that is killed, and what became of its processes and their output
- `failpoints`: the end of gafferd or its keeper at a chosen system call
- `kept_streams`: the streams of a process in a program that may be killed
- `passing`: sockets that are open when a daemon starts, as a service manager passes them
- `following`: commands that go on until Ctrl-C, and the lines that they have printed
- `console`: a command on a terminal of its own, or with a pipe for its output
- `tmux`: a program on a terminal that shows a screen
- `terminal_picture`: a picture of such a screen
- `docker`: images and containers
- `machines`: machines of their own in namespaces, with systemd as their first process
- `wheels`: the built packages
- `network`: hosts with a network of their own, whose links can be cut or made lossy
- `faults`: daemons on such hosts, and clients that ask the lookupds all the time
- `sandbox`: a gafferd that can be told to run anything
- `strangers`: processes of another user
- `writable`: files and directories that other users can write to
- `attack`: clients that attack a node, as programs of their own
- `dispositions`: the signals that processes ignore

On the test's own loop or in a thread of the test

- `managers`: a manager, and what its events were
- `holder`: what a keeper is to the sockets of a manager
- `cutting`: a proxy whose connections are cut on demand
- `commands`: auxiliary commands of jobs
- `probed`: a process as a prober sees it, and the verdicts of the prober
- `http_node`: a manager with its HTTP API, and a client of it
- `sockjs`: a server with SockJS endpoints, and a client of them
- `registry`: a registry with a clock that the test turns
- `registry_steps`: steps of a registry for hypothesis to choose from
- `served_lookup`: the application of lookupd over a registry that the test changes
- `turnable`: an event loop whose clock can be turned forward

Servers that the test scripts

- `client`: a server with one response a path, and the result of a command in this process
- `scripted`: a server whose connections follow a script
- `scripted_socket`: the server's end of a websocket in such a script
- `other_lookupd`: a lookupd of 0.5, or one that misbehaves
- `webhooks`: a receiver of webhooks
- `plugins`: plugins of gafferd that note what is done to them, and a node that runs them

Clients that do what the test tells them

- `peer`: a node that announces to a lookupd
- `raw_http`: any bytes over HTTP/1.x
- `websocket`: any frames over a websocket
- `event_source`: server-sent events, read when asked
- `follower`: the map of a lookupd, kept by its events
- `metrics`: the values at /metrics
- `browser`: pages in Chromium, and axe

Judges

- `poll`: wait for a condition, with a deadline
- `history`: what clients were told of nodes, held against what became of the nodes
- `fuzzing`: hooks of schemathesis
- `playbook`: events and instructions of a state machine, in order
- `job_steps`: steps of such playbooks of a job
- `job_system`: a system that carries out the instructions of one job

Plugins of pytest, and what runs above it

- `leaks`: fail a test that leaves something behind
- `needs`: marks for tests that need more than a Python and a loopback interface
- `subreaper`: receive and show what daemons under test leave behind
"""
