/** Producers: their steps are a record, a message and a mark, between which they may stand still. */
import { Effect } from "effect"
import type { Created, NewRecord } from "../../src/BackendDriver.ts"
import type { Envelope } from "../../src/BrokerDriver.ts"
import type { Command } from "./commands.ts"
import { definitionOf, isGenerated, RESERVED_UNITS, taskOf } from "./definitions.ts"
import type { ModelRunner } from "./modelRunner.ts"
import { type Content, nextUnique, type Operation } from "./modelState.ts"

/** An enqueue that its producer has begun. */
interface Enqueuing {
  readonly record: NewRecord
  readonly message: Envelope & { readonly generation: number }
  readonly content: Content
  /** When the producer asked for the reservation. */
  readonly since: number
  /** The next step. */
  readonly next: "reserve" | "publish" | "mark"
}

/** Producers over one store. */
export class Producers {
  private readonly runner: ModelRunner
  /** Enqueues whose producers stand still, and may have died. */
  private readonly stopped: Array<Enqueuing> = []

  constructor(runner: ModelRunner) {
    this.runner = runner
  }

  private prepare(command: Command & { readonly _tag: "Enqueue" }): Enqueuing {
    const { runner } = this
    const { expires, key, mode, payload } = command
    const generated = isGenerated(command.id)
    const id = generated ? runner.generateId(command.id) : command.id
    const unrecorded = generated && mode === "unrecorded"
    const task = command.otherTask && !generated ? "other" : taskOf(command.id)
    const millis = (count: number | undefined) => (count === undefined ? undefined : runner.units(count))
    const queue = runner.setting.queues[command.queue % runner.setting.queues.length]!
    const delayMillis = runner.units(command.delay)
    const record: NewRecord = {
      id,
      task,
      incarnation: generated ? "" : `x${nextUnique()}`,
      queue,
      key: unrecorded ? undefined : key,
      payloadHash: generated && key === undefined ? "" : payload,
      delayMillis,
      expiresMillis: millis(expires),
      retentionMillis: millis(definitionOf(task).retention),
      reservedMillis: runner.units(RESERVED_UNITS)
    }
    const message: Enqueuing["message"] = {
      id,
      task,
      queue,
      priority: runner.broker.capabilities.priorities < 256 ? 100 : command.priority,
      delayMillis,
      incarnation: record.incarnation,
      generation: 0,
      body: runner.nextBody(id)
    }
    const content = { enqueue: { id, payload }, unrecorded, expiresMillis: record.expiresMillis }
    return { record, message, content, since: runner.now, next: "reserve" }
  }

  enqueue(command: Command & { readonly _tag: "Enqueue" }): Operation {
    const { runner } = this
    if (!command.forgets || isGenerated(command.id)) return this.begin(command)
    runner.log(`forget ${command.id}`)
    return Effect.andThen(runner.forget(command.id), this.begin(command))
  }

  private begin(command: Command & { readonly _tag: "Enqueue" }): Operation {
    return Effect.suspend(() => {
      const enqueuing = this.prepare(command)
      const { content, message, record } = enqueuing
      const fused = command.mode === "fused" && this.runner.backend.fusion !== undefined
      const what = [
        `${record.id}${record.incarnation === "" ? "" : `.${record.incarnation}`}`,
        record.task === taskOf(command.id) ? "" : `as ${record.task}`,
        record.key === undefined ? "" : `key ${record.key}`,
        record.payloadHash === "" ? "" : `payload ${record.payloadHash}`,
        command.delay === 0 ? "" : `due in ${command.delay}`,
        command.expires === undefined ? "" : `expires in ${command.expires}`,
        `message ${message.body} to ${message.queue}`
      ]
      const mode = content.unrecorded ? "unrecorded" : fused ? "fused" : "record first"
      this.runner.log(`enqueue ${what.filter((word) => word !== "").join(", ")} (${mode})`)
      if (content.unrecorded) {
        this.runner.promises.accept(content.enqueue, 0)
        return this.runner.publish(message, content)
      }
      return fused ? this.enqueueFused(enqueuing, command.steps) : this.takeSteps(enqueuing, command.steps)
    })
  }

  private enqueueFused(enqueuing: Enqueuing, steps: number): Operation {
    return Effect.gen({ self: this }, function* () {
      const { content, message, record } = enqueuing
      const fusion = this.runner.backend.fusion!
      const fusedRecord = { ...record, reservedMillis: undefined }
      let isRepeated = false
      const created = yield* this.runner.repeatable(
        Effect.suspend(() => {
          // one that is repeated after its record is gone sends another message, which the model knows by its body
          const body = isRepeated ? this.runner.nextBody(message.id) : message.body
          isRepeated = true
          return this.runner.enqueueFused(fusedRecord, { ...message, body }, content, fusion)
        })
      )
      this.runner.logAnswer(created)
      if (created._tag === "Created") return this.runner.promises.accept(content.enqueue, 0)
      const reserved = yield* this.afterCreate(enqueuing, created)
      // a fused request renews no reservation: the first step renews the one that it found
      if (reserved !== undefined) yield* this.takeSteps(enqueuing, steps - 1)
    })
  }

  /** Takes at most that many steps, after which the producer stops. */
  private takeSteps(enqueuing: Enqueuing, steps: number): Operation {
    return Effect.gen({ self: this }, function* () {
      let current: Enqueuing | undefined = enqueuing
      for (let left = steps; current !== undefined; left--) {
        if (left === 0) {
          this.stopped.push(current)
          return this.runner.log(`  its producer stops; its next step is to ${current.next}`)
        }
        current = yield* this.takeStep(current)
      }
    })
  }

  /** Takes one step and returns what is left; `undefined`: nothing is. */
  private takeStep(enqueuing: Enqueuing): Operation<Enqueuing | undefined> {
    return Effect.gen({ self: this }, function* () {
      const { content, message, record, since } = enqueuing
      const { runner } = this
      switch (enqueuing.next) {
        case "reserve": {
          const created = yield* runner.repeatable(runner.create(record, content.enqueue))
          runner.logAnswer(created)
          return yield* this.afterCreate({ ...enqueuing, since: runner.now }, created)
        }
        case "publish":
          yield* runner.publish(message, content)
          return { ...enqueuing, next: "mark" }
        case "mark": {
          const { id, incarnation } = record
          const { generation } = message
          const marked = yield* runner.repeatable(runner.markPublished({ id, incarnation, generation }))
          const isLate = runner.now - since > runner.units(RESERVED_UNITS) / 2
          if (marked || !isLate) {
            runner.promises.accept(content.enqueue, generation)
            return undefined
          }
          runner.log(`  the reservation of ${message.id} is gone; its producer starts over`)
          const body = runner.nextBody(message.id)
          return { ...enqueuing, message: { ...message, body }, next: "reserve" }
        }
      }
    })
  }

  /** Returns what is left after a record was created or found. */
  private afterCreate(enqueuing: Enqueuing, created: Created): Operation<Enqueuing | undefined> {
    const { content, message } = enqueuing
    if (created._tag === "Created") return Effect.succeed({ ...enqueuing, next: "publish" })
    if (!created.same) return Effect.undefined
    const { generation, id, incarnation } = created
    const enqueue = this.runner.promises.ownerOf(id)
    if (enqueue === undefined) return this.runner.disagree(`${id} has a record, and nobody enqueued it`)
    const adopted: Enqueuing = {
      ...enqueuing,
      record: { ...enqueuing.record, id, incarnation },
      message: { ...message, id, incarnation, generation, body: this.runner.nextBody(id) },
      content: { ...content, enqueue },
      next: "publish"
    }
    return Effect.map(
      this.runner.assertInvariant(this.runner.promises.onFound(content.enqueue, enqueue)),
      () => {
        if (!created.published) return adopted
        this.runner.promises.accept(enqueue, generation)
        return undefined
      }
    )
  }

  /** Lets a producer that stopped take more steps. */
  continueStopped(nth: number, steps: number): Operation {
    return Effect.suspend(() => {
      const [enqueuing] = this.stopped.splice(-1 - (nth % Math.max(1, this.stopped.length)), 1)
      if (enqueuing === undefined) return Effect.void
      this.runner.log(`the producer of ${enqueuing.message.body} continues`)
      return this.takeSteps(enqueuing, steps)
    })
  }

  /** Publishes a message again, as a broker may. */
  duplicate(nth: number): Operation {
    return Effect.suspend(() => {
      const { contents, messages } = this.runner
      // of a message that the store may have removed there is no copy
      const all = [...messages.values()].filter(({ maybeGone }) => !maybeGone)
      const message = all.at(-1 - (nth % Math.max(1, all.length)))
      if (message === undefined) return Effect.void
      const { envelope } = message
      const body = this.runner.nextBody(envelope.id)
      this.runner.log(`message ${envelope.body} is duplicated as ${body}`)
      return this.runner.publish({ ...envelope, delayMillis: 0, body }, contents.get(envelope.body)!)
    })
  }
}
