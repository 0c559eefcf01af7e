"""What an application does with redis-py, against the server at HOST PORT: every answer is checked. Prints the number of checks."""

import sys
import threading

import redis

checks = 0


def check(got, expected):
    global checks
    checks += 1
    if got != expected:
        raise SystemExit(f"check {checks}: got {got!r}, expected {expected!r}")


def strings(r):
    check(r.ping(), True)
    check(r.set("s", "value", ex=100), True)
    check(r.get("s"), b"value")
    check(0 < r.ttl("s") <= 100, True)
    check(r.set("s", "other", nx=True), None)
    check(r.set("s", "other", get=True), b"value")
    check(r.getrange("s", 1, 3), b"the")
    check(r.append("s", "!"), 6)
    check(r.incr("n"), 1)
    check(r.incrby("n", 41), 42)
    check(float(r.incrbyfloat("n", 0.5)), 42.5)
    check(r.mset({"a": 1, "b": 2}), True)
    check(r.mget("a", "b", "missing"), [b"1", b"2", None])
    check(r.delete("a", "b", "missing"), 2)
    check(r.exists("a"), 0)
    large = b"x" * 1_000_000
    check(r.set("large", large), True)
    check(r.get("large"), large)
    check(r.strlen("large"), len(large))
    check(r.delete("large"), 1)
    try:
        r.lpush("s", 1)
        check("no error", "an error")
    except redis.ResponseError as error:
        check(str(error).startswith("WRONGTYPE"), True)


def collections(r):
    check(r.hset("h", mapping={"one": 1, "two": 2}), 2)
    check(r.hgetall("h"), {b"one": b"1", b"two": b"2"})
    check(r.hincrby("h", "two", 5), 7)
    check(r.hdel("h", "one"), 1)
    check(r.rpush("l", 1, 2, 3, 4), 4)
    check(r.lrange("l", 0, -1), [b"1", b"2", b"3", b"4"])
    check(r.lpop("l"), b"1")
    check(r.lmove("l", "l2", "RIGHT", "LEFT"), b"4")
    check(r.blpop("l2", timeout=1), (b"l2", b"4") if not r3(r) else [b"l2", b"4"])
    check(r.sadd("set", "a", "b", "c"), 3)
    check(r.smembers("set"), {b"a", b"b", b"c"})
    check(r.sismember("set", "d"), 0)
    check(r.zadd("z", {"x": 1.5, "y": 2, "w": -1}), 3)
    check(r.zrange("z", 0, -1), [b"w", b"x", b"y"])
    check(r.zscore("z", "x"), 1.5)
    check(r.zincrby("z", 3, "w"), 2.0)
    check(r.zcount("z", 1.5, "+inf"), 3)
    first = r.xadd("stream", {"field": "value"})
    check(r.xlen("stream"), 1)
    check(r.xrange("stream"), [(first, {b"field": b"value"})])


def r3(r):
    return r.connection_pool.connection_kwargs.get("protocol") in (3, "3")


def transactions(r):
    with r.pipeline() as pipe:
        check(pipe.set("p", 1).incr("p").get("p").execute(), [True, 2, b"2"])
    with r.pipeline() as pipe:
        pipe.watch("p")
        r.set("p", 10)
        pipe.multi()
        pipe.incr("p")
        try:
            pipe.execute()
            check("executed", "refused")
        except redis.WatchError:
            check(r.get("p"), b"10")

    def put(pipe):
        pipe.multi()
        pipe.set("q", 5)

    check(r.transaction(put, "p"), [True])
    with r.pipeline(transaction=False) as pipe:
        for number in range(1000):
            pipe.set(f"k{number}", number)
        check(pipe.execute(), [True] * 1000)
    check(len(set(r.scan_iter(match="k*", count=100))), 1000)
    check(r.unlink(*(f"k{number}" for number in range(1000))), 1000)


def messages(r):
    subscriber = r.pubsub(ignore_subscribe_messages=True)
    subscriber.subscribe("channel")
    subscriber.psubscribe("pattern*")
    while subscriber.connection is None or len(subscriber.channels) + len(subscriber.patterns) < 2:
        pass
    # The answers to both, which are not given on.
    for _ in range(2):
        subscriber.get_message(timeout=5)
    check(r.publish("channel", "one"), 1)
    check(r.publish("pattern-1", "two"), 1)
    got = []
    while len(got) < 2:
        message = subscriber.get_message(timeout=5)
        if message:
            got.append(message["data"])
    check(sorted(got), [b"one", b"two"])
    subscriber.close()


def administration(r):
    check(r.client_setname("tester"), True)
    check(r.client_getname() in (b"tester", "tester"), True)
    check(any(client["name"] == "tester" for client in r.client_list()), True)
    check("redis_version" in r.info("server"), True)
    check(r.dbsize() > 0, True)
    check("maxmemory" in r.config_get("maxmemory"), True)
    check(r.expire("s", 50), True)
    check(r.persist("s"), True)
    check(r.type("h"), b"hash")
    check(r.rename("s", "t"), True)


def threads(host, port, protocol):
    """Counts in ten threads over one pool of connections."""
    r = redis.Redis(host=host, port=port, protocol=protocol)
    r.delete("count")

    def work():
        for _ in range(100):
            r.incr("count")

    workers = [threading.Thread(target=work) for _ in range(10)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    check(r.get("count"), b"1000")


def main():
    host, port = sys.argv[1], int(sys.argv[2])
    for protocol in (2, 3):
        r = redis.Redis(host=host, port=port, protocol=protocol, socket_timeout=30)
        r.flushall()
        for part in (strings, collections, transactions, messages, administration):
            part(r)
        threads(host, port, protocol)
        r.flushall()
    print(checks)


main()
