/** Workers that claim messages and run tasks. */
import { Effect } from "effect"
import type { ClaimedMessage, Outcome, Settled, Start, Started } from "../../src/BackendDriver.ts"
import type { ClaimRequest, Delivery } from "../../src/BrokerDriver.ts"
import type { Ending } from "./commands.ts"
import { type Definition, definitionOf, definitions } from "./definitions.ts"
import * as Messages from "./messages.ts"
import { type ModelRunner, waitOf } from "./modelRunner.ts"
import type { Operation } from "./modelState.ts"
import * as Tasks from "./tasks.ts"

/** A claimed message and what its worker knows of it. It is kept for good, as a worker may return to it. */
export interface HeldMessage {
  readonly worker: string
  readonly delivery: Delivery
  readonly request: Start
  readonly definition: Definition
  /** Whether the worker has to create the record before it starts the task. */
  unrecorded: boolean
  started: Started | undefined
  acked: boolean
  settled: { readonly outcome: Outcome; readonly answer: Settled } | undefined
  /** Whether nothing is left to do. */
  done: boolean
}

interface LastClaim {
  readonly claim: ClaimRequest
  readonly fused: boolean
  /** The worker did not receive the answer. */
  readonly lost: boolean
  readonly deliveries: ReadonlyArray<Delivery>
}

let instances = 0

/** Workers over one store. */
export class Workers {
  private readonly runner: ModelRunner
  private readonly name = `${++instances}`
  private tokens = 0
  private claims = 0
  private readonly held: Array<HeldMessage> = []
  private readonly lastClaims = new Map<string, LastClaim>()
  private readonly leaseMillis: number

  constructor(runner: ModelRunner) {
    this.runner = runner
    this.leaseMillis = runner.units(2.5)
  }

  private makeHeld(worker: string, delivery: Delivery, token: string): HeldMessage {
    const { body, handle, id = "", queue, task = "" } = delivery
    const definition = definitionOf(task)
    // a worker decodes them from the body
    const { generation = 0, incarnation = "" } = Messages.heldBy(this.runner.messages, handle)!.envelope
    const request: Start = {
      ...this.startDefaultsOf(definition),
      id,
      incarnation,
      generation,
      token,
      worker,
      queue,
      body,
      deliveryMode: definition.delivery
    }
    const held: HeldMessage = {
      worker,
      delivery,
      request,
      definition,
      unrecorded: this.runner.contentOf(body).unrecorded,
      started: undefined,
      acked: false,
      settled: undefined,
      done: false
    }
    return held
  }

  private startDefaultsOf({ letterRetention, maxCrashes, name, retention }: Definition) {
    return {
      task: name,
      leaseMillis: this.leaseMillis,
      maxCrashes,
      retentionMillis: retention === undefined ? undefined : this.runner.units(retention),
      deadLetterRetentionMillis:
        letterRetention === undefined ? undefined : this.runner.units(letterRetention)
    }
  }

  private readonly nextToken = () => `t${this.name}-${++this.tokens}`

  /** Returns a claim's call, fused with starts if that is asked for and supported. */
  private claimCall(
    claim: ClaimRequest,
    fused: boolean
  ): Effect.Effect<ReadonlyArray<ClaimedMessage>, unknown> {
    const fusedClaim = fused ? this.runner.backend.fusion?.claim : undefined
    if (fusedClaim !== undefined) {
      const terms = definitions.filter(({ delivery }) => delivery === "at-least-once")
      return fusedClaim({
        ...claim,
        startDefaults: terms.map((definition) => this.startDefaultsOf(definition))
      })
    }
    const unstarted = (delivery: Delivery): ClaimedMessage => ({ delivery, run: undefined })
    return Effect.map(this.runner.broker.claim(claim), (deliveries) => deliveries.map(unstarted))
  }

  /** Takes in claimed messages, some of them started. */
  private receive(
    worker: string,
    claimed: ReadonlyArray<ClaimedMessage>,
    lost = false
  ): Operation<ReadonlyArray<HeldMessage>> {
    return Effect.gen({ self: this }, function* () {
      const heldMessages: Array<HeldMessage> = []
      for (const { delivery, run } of claimed) {
        const held = this.makeHeld(worker, delivery, run?.token ?? this.nextToken())
        if (run !== undefined) yield* this.runner.assertStarted(held.request, run.started)
        held.started = run?.started
        heldMessages.push(held)
      }
      if (!lost) this.held.push(...heldMessages)
      return heldMessages
    })
  }

  /** Claims messages. A lost answer leaves them unknown until the claim is repeated. */
  claim(
    worker: string,
    max: number,
    fused: boolean,
    answerLost = false
  ): Operation<ReadonlyArray<HeldMessage>> {
    return Effect.gen({ self: this }, function* () {
      // a live connection loses no answer
      const lost = answerLost && this.runner.broker.capabilities.lease === "store"
      const claimId = `c${this.name}-${++this.claims}`
      const claim: ClaimRequest = {
        queues: this.runner.setting.queues,
        max,
        leaseMillis: this.leaseMillis,
        worker,
        claimId
      }
      const starting = fused && this.runner.backend.fusion?.claim !== undefined
      this.runner.log(`${worker} claims ${starting ? "and starts " : ""}up to ${max}`)
      const claimed = yield* this.runner.claim(this.claimCall(claim, fused), claim)
      const heldMessages = yield* this.receive(worker, claimed, lost)
      if (lost) this.runner.log("  the answer is lost")
      const deliveries = claimed.map(({ delivery }) => delivery)
      // a claim whose runs are known is not repeated
      if (lost || !starting) this.lastClaims.set(worker, { claim, fused, lost, deliveries })
      else this.lastClaims.delete(worker)
      return heldMessages
    })
  }

  /** Repeats the last claim of a worker, which then knows the deliveries of a lost answer. */
  retryClaim(worker: string, max: number): Operation {
    return Effect.gen({ self: this }, function* () {
      const last = this.lastClaims.get(worker)
      if (last === undefined) return
      const claim: ClaimRequest = { ...last.claim, max, isRetry: true }
      this.runner.log(`${worker} repeats its last claim, for up to ${max}`)
      const claimed = yield* this.runner.retryClaim(this.claimCall(claim, last.fused), claim, last.deliveries)
      const known = new Set(last.lost ? [] : last.deliveries.map(({ handle }) => handle))
      yield* this.receive(
        worker,
        claimed.filter(({ delivery }) => !known.has(delivery.handle))
      )
      const handles = new Set(claimed.map(({ delivery }) => delivery.handle))
      const rest = last.deliveries.filter(({ handle }) => !handles.has(handle))
      if (last.fused) this.lastClaims.delete(worker)
      else {
        const deliveries = [...rest, ...claimed.map(({ delivery }) => delivery)]
        this.lastClaims.set(worker, { ...last, lost: false, deliveries })
      }
    })
  }

  private readonly heldAt = (nth: number, which = (_: HeldMessage) => true): HeldMessage | undefined => {
    const heldMessages = this.held.filter(which)
    return heldMessages.at(-1 - (nth % Math.max(1, heldMessages.length)))
  }

  start(held: HeldMessage): Operation {
    return Effect.gen({ self: this }, function* () {
      this.runner.log(`${held.worker} starts ${String(held.delivery.body)} as ${held.request.token}`)
      yield* this.runner.repeatable(
        Effect.map(this.runner.start(held.request), (started) => {
          held.started = started
        })
      )
    })
  }

  /**
   * Creates the record of a message whose producer has no backend. A worker creates nothing once its claim was taken over
   * and the task is gone: there would be a record without a message.
   */
  private createRecord(held: HeldMessage): Operation {
    return Effect.suspend(() => {
      const { runner } = this
      const { delivery, request, worker } = held
      const { id, incarnation, queue, retentionMillis, task } = request
      const isTakenOver = Messages.heldBy(runner.messages, delivery.handle) === undefined
      if (isTakenOver && Tasks.find(runner.tasks, id, runner.now) === undefined) {
        held.done = true
        return Effect.void
      }
      runner.log(`${worker} creates the record of ${String(delivery.body)}`)
      held.unrecorded = false
      const { enqueue, expiresMillis } = runner.contentOf(delivery.body)
      const unknown = { key: undefined, payloadHash: "", delayMillis: 0, reservedMillis: undefined }
      return Effect.map(
        runner.create({ ...unknown, id, incarnation, task, queue, expiresMillis, retentionMillis }, enqueue),
        (created) => runner.logAnswer(created)
      )
    })
  }

  /** Whether a message may be started: a token is reused only for its own run or after a refusal. */
  mayStart({ acked, request, started, unrecorded }: HeldMessage): boolean {
    if (acked || unrecorded) return false
    return (
      started?._tag !== "Run" ||
      Tasks.find(this.runner.tasks, request.id, this.runner.now)?.run?.token === request.token
    )
  }

  settle(held: HeldMessage, ending: Ending, fused: boolean): Operation {
    return Effect.gen({ self: this }, function* () {
      const { request, delivery, worker } = held
      const { generation, id, token } = request
      const settlement = { id, token, outcome: this.outcomeOf(ending, held) }
      const settle = fused ? this.runner.backend.fusion?.settle : undefined
      const { outcome } = settlement
      this.runner.log(
        `${worker} settles ${id} of ${token}: ${ending}${settle === undefined ? "" : ", and its message"}`
      )
      const answer = yield* this.runner.repeatable(
        settle === undefined
          ? this.runner.settle(settlement, generation)
          : this.runner.settleFused(settlement, generation, delivery.handle, settle)
      )
      if (held.settled !== undefined && held.settled.answer !== "Lost") return
      held.settled = { outcome, answer }
      if (answer === "Lost" || settle !== undefined) held.done = true
    })
  }

  private outcomeOf(asked: Ending, { request, definition }: HeldMessage): Outcome {
    // an at-most-once run is not released
    const puts = asked.endsWith("retry") || asked === "release"
    const ending = puts && definition.delivery === "at-most-once" ? "failure" : asked
    const { body, queue, token } = request
    const { deadLetterRetentionMillis, retentionMillis } = this.startDefaultsOf(definition)
    const exit = `{"${ending}":"${token}"}`
    const failure = `${ending} of ${token}\n`
    switch (ending) {
      case "success":
        return { _tag: "Success", exit, retentionMillis }
      case "failure": {
        const deadLetter = { reason: "Failed", queue, body, retentionMillis: deadLetterRetentionMillis }
        return { _tag: "Failure", exit, retentionMillis, deadLetter }
      }
      case "failure without dead letter":
        return { _tag: "Failure", exit, retentionMillis, deadLetter: undefined }
      case "retry":
        return { _tag: "Retry", afterMillis: 0, failure }
      case "delayed retry":
        return { _tag: "Retry", afterMillis: this.runner.units(1.5), failure }
      case "release":
        return { _tag: "Release" }
    }
  }

  ack(held: HeldMessage): Operation {
    return Effect.suspend(() => {
      this.runner.log(`${held.worker} acks ${String(held.delivery.body)}`)
      held.acked = true
      return this.runner.repeatable(this.runner.ack(held.delivery.handle))
    })
  }

  release({ delivery, worker }: HeldMessage, afterMillis: number, preserveDueTime: boolean): Operation {
    return Effect.suspend(() => {
      const { body, handle } = delivery
      const keeping = preserveDueTime ? ", keeping its due time" : ""
      this.runner.log(
        `${worker} releases ${String(body)} for ${afterMillis / this.runner.setting.unit}${keeping}`
      )
      return this.runner.repeatable(this.runner.release({ handle, afterMillis, preserveDueTime }))
    })
  }

  /** Takes the worker's next step with a message. */
  nextStep(held: HeldMessage, ending: Ending, fused: boolean): Operation {
    return Effect.suspend(() => {
      const { definition, settled, started } = held
      if (started === undefined) return held.unrecorded ? this.createRecord(held) : this.start(held)
      const once = definition.delivery === "at-most-once"
      if (started._tag === "Run" && once && !held.acked) return this.ack(held)
      if (started._tag === "Run" && settled === undefined) {
        return this.settle(held, ending, fused && !once)
      }
      held.done = true
      if (started._tag === "Busy") {
        return this.release(
          held,
          this.runner.units(Math.floor(started.millis / this.runner.units(1)) + 0.5),
          false
        )
      }
      if (started._tag === "Run" && once) return Effect.void
      const wait = settled?.answer === "Stored" ? waitOf(settled.outcome) : undefined
      return wait === undefined ? this.ack(held) : this.release(held, wait, false)
    })
  }

  /** Whether a message may be acked: nothing is left to do for it, or another worker may hold it. */
  mayAck({ acked, delivery, done, started, settled }: HeldMessage): boolean {
    if (Messages.heldBy(this.runner.messages, delivery.handle) === undefined || acked) return true
    const isOver = settled !== undefined && settled.answer !== "Lost" && waitOf(settled.outcome) === undefined
    return (
      started?._tag === "Drop" ||
      started?._tag === "NoRecord" ||
      isOver ||
      (done && settled?.answer === "Cancelled")
    )
  }

  /** Uses the held message of that index, if there is one. */
  withHeld(
    nth: number,
    does: (held: HeldMessage) => Operation,
    which?: (held: HeldMessage) => boolean
  ): Operation {
    return Effect.suspend(() => {
      const held = this.heldAt(nth, which)
      return held === undefined ? Effect.void : does(held)
    })
  }

  renewRun({ request, worker }: HeldMessage, progress: string | undefined): Operation {
    return Effect.suspend(() => {
      const { id, token } = request
      this.runner.log(
        `${worker} renews ${token} of ${id}${progress === undefined ? "" : `, progress ${progress}`}`
      )
      return this.runner.repeatable(this.runner.renewRun(id, token, this.leaseMillis, progress))
    })
  }

  renewClaim({ delivery, worker }: HeldMessage): Operation {
    return Effect.suspend(() => {
      this.runner.log(`${worker} renews its claim of ${String(delivery.body)}`)
      return this.runner.repeatable(this.runner.renewClaim(delivery.handle, this.leaseMillis))
    })
  }

  /** Ends the connections of a worker, or of all, where connections hold claims. */
  disconnect(worker?: string): Operation {
    return Effect.suspend(() => {
      if (this.runner.broker.returnUnhandled === undefined) return Effect.void
      this.runner.log(`${worker ?? "every worker"} disconnects`)
      const theirs = this.held.filter((held) => worker === undefined || held.worker === worker)
      return Effect.forEach(theirs, ({ delivery }) => this.runner.returnUnhandled(delivery.handle), {
        discard: true
      })
    })
  }
}
