/** The wire format of Redis: each text as it is stored, so that a change of the format shows. */
import { assert, describe, it } from "@effect/vitest"
import * as BodyText from "../../src/redis/BodyText.ts"
import * as ClaimHandle from "../../src/redis/ClaimHandle.ts"
import * as FieldText from "../../src/redis/FieldText.ts"
import * as KeyHolder from "../../src/redis/KeyHolder.ts"
import * as Keyspace from "../../src/redis/Keyspace.ts"
import * as MessageText from "../../src/redis/MessageText.ts"
import * as RecordText from "../../src/redis/RecordText.ts"
import { CorruptKey } from "../../src/redis/RedisStoreError.ts"
import { encodeGroups, millis } from "../../src/redis/scriptArguments.ts"
import { decodeCreated } from "../../src/redis/scripts/lib/creates.ts"
import { decodeStarted } from "../../src/redis/scripts/lib/starts.ts"

const decodeRecord = (value: string, progress?: string) =>
  RecordText.decode("the key", "id", value, () => progress)

describe("codecs of Redis", () => {
  it("a field has no white space, is not empty, and is not a dash", () => {
    const fields = { "": "%", "-": "%2D", "a b": "a%20b", "50%": "50%25", "a\nb": "a%0Ab", über: "über" }
    for (const [text, field] of Object.entries(fields)) {
      assert.strictEqual(FieldText.encode(text), field)
      assert.strictEqual(FieldText.decode(field), text)
    }
    assert.isUndefined(FieldText.decode("%zz"))
  })

  it("a body is its text behind t, or its bytes in base64 behind b", () => {
    assert.strictEqual(BodyText.encode("text"), "ttext")
    assert.strictEqual(BodyText.encode(Uint8Array.of(255, 0)), "b/wA=")
    assert.strictEqual(BodyText.decode("tb"), "b")
    assert.deepStrictEqual(BodyText.decode("b/wA="), Uint8Array.of(255, 0))
  })

  it("a message is a head line and the body", () => {
    const envelope = { id: "a b", task: "mail", queue: "q", priority: 100, delayMillis: 0, body: "{}\n" }
    const texts = {
      "a%20b mail 0 -\n{}\n": { incarnation: "", generation: 0 },
      "a%20b mail 2 1f2e\n{}\n": { incarnation: "1f2e", generation: 2 }
    }
    for (const [text, enqueue] of Object.entries(texts)) {
      assert.strictEqual(MessageText.encode({ ...envelope, ...enqueue }), text)
      assert.deepStrictEqual(MessageText.decode(text), { id: "a b", task: "mail", ...enqueue, body: "{}\n" })
    }
    assert.strictEqual(MessageText.encode(envelope), "a%20b mail 0 -\n{}\n")
  })

  it("a message without a valid head is all body", () => {
    for (const text of [
      "",
      "hello",
      "a mail\n{}",
      "a mail 0\n{}",
      "a mail 0 \n{}",
      "%zz mail 0 -\n{}",
      "a mail 0 not/letters\n{}",
      `a mail 0 ${"9".repeat(33)}\n{}`,
      "a mail 9999999999999999 -\n"
    ]) {
      assert.deepStrictEqual(MessageText.decode(text), {
        id: undefined,
        task: undefined,
        incarnation: undefined,
        generation: undefined,
        body: text
      })
    }
  })

  it("a message whose body is not UTF-8 keeps its head and its bytes", () => {
    const hex = `${Buffer.from("a mail 0 7c\n").toString("hex")}fffe`
    assert.deepStrictEqual(MessageText.decodeHex(hex), {
      id: "a",
      task: "mail",
      incarnation: "7c",
      generation: 0,
      body: Uint8Array.of(255, 254)
    })
  })

  it("a handle is the shard, the member and the queue", () => {
    const handle = "3/000000000000001:17:100:c/q/with/slashes"
    assert.strictEqual(ClaimHandle.encode(3, "000000000000001:17:100:c", "q/with/slashes"), handle)
    assert.deepStrictEqual(ClaimHandle.decode(handle, 4), {
      handle,
      shard: 3,
      member: "000000000000001:17:100:c",
      queue: "q/with/slashes"
    })
    for (const other of [handle.replace("3", "4"), "", "3", "3/a", "/a/b", "x/a/b"]) {
      assert.isUndefined(ClaimHandle.decode(other, 4), other)
    }
  })

  it("the holder of a key is a claim and a task id", () => {
    const claim = KeyHolder.makeClaim()
    assert.strictEqual(KeyHolder.encode({ claim, id: "a b" }), `${claim} a b`)
    assert.deepStrictEqual(KeyHolder.decode(`${claim} a b`), { claim, id: "a b" })
    for (const other of ["", "a", "a b", claim, `${claim}0 a`]) assert.isUndefined(KeyHolder.decode(other))
  })

  it("a record is its fields in order, and the exit", () => {
    const value =
      "SUCCESS token - + 60000 2000 1 2 1 0 3 1700 1500 w%20x p - mail 7c 1000 - slow%20lane - 1 - - - 1 - - -\n" +
      `{"exit":1}`
    assert.deepStrictEqual(decodeRecord(value, "half"), {
      id: "id",
      task: "mail",
      state: "SUCCESS",
      incarnation: "7c",
      generation: 1,
      attempt: 2,
      retries: 1,
      crashes: 0,
      queue: "slow lane",
      exit: `{"exit":1}`,
      progress: "half",
      worker: "w x",
      cancelRequested: true,
      ended: null,
      enqueuedAt: 1000,
      startedAt: 1500,
      finishedAt: 2000,
      expiresAt: null,
      dueAt: 1700
    })
  })

  it("a run whose message was withdrawn has no cancel request", () => {
    const value = (stop: string) =>
      `STARTED token - + - 2000 0 1 0 0 1 - 1500 w p - mail - 1000 - default - ${stop} - - - - - - -\n`
    assert.deepStrictEqual(
      ["-", "1", "2"].map((stop) => decodeRecord(value(stop)).cancelRequested),
      [false, true, false]
    )
  })

  it("a record whose field does not fit throws CorruptKey with the key and the field", () => {
    const value = (state: string, attempt: string) =>
      `${state} - - - - - 0 ${attempt} 0 0 0 - - - - - mail - 1000 - - - - - - - - - - -\n`
    assert.strictEqual(decodeRecord(value("PENDING", "0")).state, "PENDING")
    for (const [text, field] of [
      [value("SLEEPING", "0"), "state"],
      [value("PENDING", "many"), "attempt"],
      ["", "state"]
    ] as const) {
      try {
        decodeRecord(text)
        assert.fail(`decoded ${text}`)
      } catch (error) {
        assert.instanceOf(error, CorruptKey)
        assert.strictEqual(error.key, "the key")
        assert.strictEqual(error.field, field)
      }
    }
  })

  it("neighbours with the same head form one group", () => {
    const args = encodeGroups(
      ["a1", "a2", "b1", "a3"],
      (item) => [item[0]!],
      (args, item) => args.push(item)
    )
    assert.deepStrictEqual(args, ["a", "2", "a1", "a2", "b", "1", "b1", "a", "1", "a3"])
  })

  it("milliseconds are whole numbers, and empty for none", () => {
    assert.deepStrictEqual([0, 1.2, undefined, Infinity].map(millis), ["0", "2", "", ""])
  })

  it("answers are decoded by their first letter", () => {
    assert.deepStrictEqual(decodeCreated("C"), { _tag: "Created" })
    for (const [answer, incarnation] of [
      ["E100 - the id", ""],
      ["E100 7c the id", "7c"]
    ] as const) {
      assert.deepStrictEqual(decodeCreated(answer), {
        _tag: "Existing",
        id: "the id",
        incarnation,
        generation: 0,
        same: true,
        published: false
      })
    }
    assert.deepStrictEqual(decodeStarted("R"), { _tag: "Run", fence: 1, attempt: 1, retries: 0, crashes: 0 })
    assert.deepStrictEqual(decodeStarted("R 4 3 2 1"), {
      _tag: "Run",
      fence: 4,
      attempt: 3,
      retries: 2,
      crashes: 1
    })
    assert.deepStrictEqual(decodeStarted("R 4 3 2 1 a%20worker"), {
      _tag: "Run",
      fence: 4,
      attempt: 3,
      retries: 2,
      crashes: 1,
      lostWorker: "a worker"
    })
    assert.deepStrictEqual(decodeStarted("D WorkerLost 2 3 a%20worker"), {
      _tag: "Drop",
      ended: { reason: "WorkerLost", attempt: 2, crashes: 3, worker: "a worker" }
    })
    assert.deepStrictEqual(decodeStarted("D Expired 0 0 -"), {
      _tag: "Drop",
      ended: { reason: "Expired", attempt: 0, crashes: 0, worker: null }
    })
    assert.deepStrictEqual(decodeStarted("B 25"), { _tag: "Busy", millis: 25 })
    assert.deepStrictEqual(decodeStarted("D"), { _tag: "Drop" })
    assert.deepStrictEqual(decodeStarted("N"), { _tag: "NoRecord" })
  })

  it("keys, channels and shards are part of the wire format", () => {
    const { base, channel, declaredKeys, shardOf } = Keyspace.make({ prefix: "p", shards: 12 })
    assert.deepStrictEqual(["a", "b", "ü"].map(shardOf), [4, 1, 10])
    assert.strictEqual(base(11), "{p:11}")
    assert.deepStrictEqual(declaredKeys(11), ["{p:11}", "{p:11}:none"])
    assert.strictEqual(channel("x"), "p:process:x")
  })
})
