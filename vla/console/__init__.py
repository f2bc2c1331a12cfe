"""The console: a local web page before an arm that listens.

::

    loop ──ticks──► Board ──snapshots, pictures──► ConsoleServer ──websocket──► page
                                                        │
    Prompt ◄──lines── Lines ◄──what is typed, pause─────┤
    robot.stop() ◄──stop (in the server's own thread)───┘
"""
