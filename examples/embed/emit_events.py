"""Publish and subscribe to events with your own EventEmitter."""

from gaffer.events import EventEmitter
from gaffer.loop import Loop


def main() -> None:
    loop = Loop.default_loop()
    emitter = EventEmitter(loop)

    # a pattern is a prefix; "." matches all events
    emitter.subscribe("order", lambda evtype, number: print(f"{evtype}: {number}"))
    emitter.subscribe_once("order.paid", lambda evtype, number: print(f"first payment: {number}"))
    emitter.subscribe("closed", lambda evtype: loop.stop())

    for number in (1, 2):
        emitter.publish("order.placed", number)
        emitter.publish("order.paid", number)
    emitter.publish("closed")
    loop.run_forever()
    emitter.close()


if __name__ == "__main__":
    main()
