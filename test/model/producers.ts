/** Who enqueues, and who looks after the dead letters. */
import { Effect } from "effect"
import type { NewRecord } from "../../src/BackendDriver.ts"
import type { Envelope } from "../../src/BrokerDriver.ts"
import type { Command } from "./commands.ts"
import { definitionOf, isPlain, taskOf } from "./definitions.ts"
import type { Did, Player } from "./modelRunner.ts"
import * as Tasks from "./tasks.ts"

/** Producers over one store. */
export class Producers {
  private readonly on: Player
  /** Letters whose replay was cut off. */
  private readonly cut = new Set<string>()

  constructor(on: Player) {
    this.on = on
  }

  enqueue(command: Command & { readonly _tag: "Enqueue" }): Did {
    return Effect.gen({ self: this }, function* () {
      const { id, key, payload, steps } = command
      const plain = isPlain(id)
      const known = Tasks.find(this.on.tasks, id, this.on.now)
      const task = command.otherTask && !plain && known !== undefined ? "other" : taskOf(id)
      const millis = (count: number | undefined) => (count === undefined ? undefined : this.on.units(count))
      const record: NewRecord = {
        id,
        task,
        key: plain ? undefined : key,
        payloadHash: plain ? "" : payload,
        expiresMillis: millis(command.expires),
        retentionMillis: millis(definitionOf(task).retention),
        published: true
      }
      const message: Envelope = {
        id,
        task,
        queue: this.on.setting.queues[command.queue % this.on.setting.queues.length]!,
        priority: this.on.broker.capabilities.priorities < 256 ? 100 : command.priority,
        delayMillis: this.on.units(command.delay),
        generation: 0,
        expiresMillis: record.expiresMillis,
        body: this.on.nextBody(id)
      }
      const what = [
        id,
        task === taskOf(id) ? "" : `as ${task}`,
        record.key === undefined ? "" : `key ${key}`,
        record.payloadHash === "" ? "" : `payload ${payload}`,
        command.delay === 0 ? "" : `due in ${command.delay}`,
        command.expires === undefined ? "" : `expires in ${command.expires}`,
        `message ${message.body} to ${message.queue}`
      ]
      const { fusion } = this.on.backend
      const way = plain ? "plain" : command.way === "fused" && fusion !== undefined ? "fused" : "reserved"
      this.on.say(`enqueue ${what.filter((word) => word !== "").join(", ")} (${way})`)
      if (way === "plain") {
        yield* this.on.publish(message)
        if (steps === 1) return this.on.say("  its producer vanishes")
        const created = yield* this.on.safely(this.on.create(record))
        this.on.answer(created)
        this.on.journal.accepted.add(id)
        return
      }
      const created = yield* this.on.safely(
        way === "fused" && fusion !== undefined
          ? this.on.enqueueFused(record, message, fusion)
          : this.on.create({ ...record, published: false })
      )
      this.on.answer(created)
      if (created._tag === "Existing" && !created.same) return
      const holder = created._tag === "Existing" ? created.id : id
      if (created._tag === "Existing" ? !created.published : way !== "fused") {
        if (steps === 1) return this.on.say("  its producer vanishes before the message is sent")
        yield* this.on.publish({ ...message, id: holder })
        if (steps === 2) return this.on.say("  its producer vanishes before the mark")
        yield* this.on.safely(this.on.markPublished(holder))
      }
      this.on.journal.accepted.add(holder)
    })
  }

  double(nth: number): Did {
    return Effect.suspend(() => {
      const message = [...this.on.messages.values()].at(-1 - (nth % Math.max(1, this.on.messages.size)))
      if (message === undefined) return Effect.void
      const { envelope } = message
      const body = this.on.nextBody(envelope.id)
      this.on.say(`message ${envelope.body} is doubled as ${body}`)
      return this.on.publish({ ...envelope, delayMillis: 0, body })
    })
  }

  replay(nth: number, steps: number): Did {
    return Effect.suspend(() => {
      const letters = Tasks.lettersOf(this.on.tasks, undefined, this.on.now)
      const letter = letters[nth % Math.max(1, letters.length)]
      return letter === undefined ? Effect.void : this.replayLetter(letter.id, steps)
    })
  }

  private replayLetter(letterId: string, steps: number): Did {
    return Effect.gen({ self: this }, function* () {
      this.on.say(`replay ${letterId}`)
      const letter = yield* this.on.safely(this.on.reopen(letterId))
      if (letter === undefined || letter.taskId === null || letter.task === null) return
      const { generation, queue, task, taskId: id } = letter
      if (steps === 1) {
        this.cut.add(letterId)
        return this.on.say("  cut off before the message is sent")
      }
      const message = { id, task, queue, priority: 100, delayMillis: 0, generation: generation + 1 }
      const body = this.on.nextBody(id)
      yield* this.on.publish({ ...message, body })
      this.on.say(`  message ${body} of generation ${generation + 1}`)
      if (steps === 2) {
        this.cut.add(letterId)
        return this.on.say("  cut off before the letter is removed")
      }
      yield* this.on.safely(this.on.removeLetter(letterId))
      this.cut.delete(letterId)
    })
  }

  dropLetter(nth: number): Did {
    return Effect.suspend(() => {
      const letters = Tasks.lettersOf(this.on.tasks, undefined, this.on.now)
      const letter = letters[nth % Math.max(1, letters.length)]
      if (letter === undefined) return Effect.void
      this.on.say(`remove letter ${letter.id}`)
      // a replay that was cut off cannot be finished then
      if (this.cut.has(letter.id) && letter.taskId !== null) this.on.journal.accepted.delete(letter.taskId)
      return this.on.safely(this.on.removeLetter(letter.id))
    })
  }

  park(deadLetterId: string, retention: number | undefined): Did {
    const retentionMillis = retention === undefined ? undefined : this.on.units(retention)
    const [queue] = this.on.setting.queues
    const message = { queue, reason: "PayloadInvalid", exit: "{}", body: "no message" }
    return this.on.park({ ...message, deadLetterId, retentionMillis })
  }

  /** Repeats the replays that were cut off. */
  readonly finishReplays: Did = Effect.suspend(() =>
    Effect.forEach(
      this.cut,
      (letterId) => {
        const letter = Tasks.findLetter(this.on.tasks, letterId, this.on.now)
        if (letter !== undefined) return this.replayLetter(letterId, 3)
        // it was kept for too short a time
        this.on.journal.accepted.delete(letterId.slice(0, letterId.lastIndexOf(":")))
        return Effect.void
      },
      { discard: true }
    )
  )

  readonly removeLetters: Did = Effect.suspend(() =>
    Effect.forEach([...this.on.tasks.letters.keys()], (id) => this.on.removeLetter(id), { discard: true })
  )
}
