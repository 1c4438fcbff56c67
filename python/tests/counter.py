"""An element that counts the messages of each session: counter.py POOL IDENTIFIER [POLICY WEIGHT].

Answers "<count> <message>". A cookie holds the count, so that another element goes on from there.
"""

import contextlib
import sys
import threading

import rserpool


def serve(session: rserpool.Session) -> None:
    count = 0
    with session, contextlib.suppress(rserpool.RSerPoolError):
        while (event := session.receive()) is not None:
            if isinstance(event, rserpool.CookieEcho):
                count = int(event.cookie)
            elif isinstance(event, rserpool.Message):
                count += 1
                session.send_cookie(str(count).encode())
                session.send(b"%d %s" % (count, event.data), ppid=event.ppid, stream=event.stream)


def main() -> None:
    pool, identifier = sys.argv[1], int(sys.argv[2])
    options = {}
    if len(sys.argv) > 3:
        options = {"policy": rserpool.Policy[sys.argv[3]], "weight": int(sys.argv[4])}
    with rserpool.Element(pool, identifier=identifier, **options) as element:
        print("registered", flush=True)
        while True:
            threading.Thread(target=serve, args=(element.accept(),), daemon=True).start()


main()
