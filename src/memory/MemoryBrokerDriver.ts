/**
 * Messages in this process.
 *
 * An operation runs in one step of its fiber, which makes it atomic. Every time is that of the caller's `Clock`.
 * A queue keeps what is ready in the order in which it is claimed, and what is delayed or claimed in the order in
 * which it becomes due, so that nothing ever looks at all messages.
 */
import { Clock, Duration, Effect, Latch, Stream } from "effect"
import type { ClaimRequest, BrokerDriver, QueueCounts, Delivery, Envelope, Release } from "../BrokerDriver.ts"
import { Heap, type Member } from "../internal/concurrency/Heap.ts"

interface Message extends Member {
  readonly envelope: Envelope
  readonly queue: Queue
  /** Its number, in the order of publishing. */
  readonly order: number
  body: string
  /** The time from which its age is counted. */
  dueAt: number
  /** When it may be claimed (again): then its delay or its lease is over. */
  wakeAt: number
  /** The last claim, until the message is claimed again. */
  handle: string | undefined
  home: Heap<Message>
}

interface Queue {
  readonly name: string
  readonly ready: Heap<Message>
  readonly delayed: Heap<Message>
  readonly claimed: Heap<Message>
  readonly listeners: Set<Listener>
}

/** Somebody who waits for a reason to claim. */
interface Listener {
  /** There is a reason that was not emitted yet. */
  reason: boolean
  /** Until when it sleeps. */
  until: number
  /** Open where it should look again. */
  readonly latch: Latch.Latch
}

const inTime = (self: Message, that: Message): boolean => self.wakeAt < that.wakeAt

const inRank = (self: Message, that: Message): boolean => {
  const [mine, other] = [self.envelope.priority, that.envelope.priority]
  if (mine !== other) return mine > other
  return self.dueAt < that.dueAt || (self.dueAt === that.dueAt && self.order < that.order)
}

const NOTHING: QueueCounts = { ready: 0, delayed: 0, claimed: 0 }

/** Makes the driver, with no messages. */
export const makeMemoryBroker: Effect.Effect<BrokerDriver<never>> = Effect.sync(() => {
  const queues = new Map<string, Queue>()
  /** Messages by the handle of their last claim. */
  const claims = new Map<string, Message>()
  /** By worker. */
  const lastClaims = new Map<
    string,
    { readonly claimId: string | undefined; readonly handles: ReadonlyArray<string> }
  >()
  let lastOrder = 0
  let lastClaim = 0

  const queueOf = (name: string): Queue => {
    const known = queues.get(name)
    if (known !== undefined) return known
    const queue: Queue = {
      name,
      ready: new Heap<Message>(inRank),
      delayed: new Heap<Message>(inTime),
      claimed: new Heap<Message>(inTime),
      listeners: new Set()
    }
    queues.set(name, queue)
    return queue
  }

  const move = (message: Message, home: Heap<Message>): void => {
    message.home.remove(message)
    message.home = home
    home.push(message)
  }

  const disclaim = (message: Message): void => {
    if (message.handle !== undefined) claims.delete(message.handle)
    message.handle = undefined
  }

  const remove = (message: Message): void => {
    message.home.remove(message)
    disclaim(message)
  }

  const announce = (queue: Queue): void => {
    for (const listener of queue.listeners) {
      listener.reason = true
      listener.latch.openUnsafe()
    }
  }

  /** Wakes those who would sleep past the time at which a message of the queue becomes due. */
  const wake = (queue: Queue, at: number): void => {
    for (const listener of queue.listeners) if (listener.until > at) listener.latch.openUnsafe()
  }

  /** Makes ready what became due. */
  const promote = (queue: Queue, now: number): void => {
    let some = false
    for (const heap of [queue.delayed, queue.claimed]) {
      for (;;) {
        const message = heap.peek()
        if (message === undefined || message.wakeAt > now) break
        // a claim that ran out keeps its handle until somebody else claims
        move(message, queue.ready)
        some = true
      }
    }
    if (some) announce(queue)
  }

  const known = (names: ReadonlyArray<string>, now: number): ReadonlyArray<Queue> => {
    const found: Array<Queue> = []
    for (const name of new Set(names)) {
      const queue = queues.get(name)
      if (queue === undefined) continue
      promote(queue, now)
      found.push(queue)
    }
    return found
  }

  /** Puts a message where its time says. */
  const put = (message: Message, now: number): void => {
    const { queue } = message
    if (message.wakeAt > now) {
      move(message, queue.delayed)
      wake(queue, message.wakeAt)
    } else {
      move(message, queue.ready)
      announce(queue)
    }
  }

  const publish = (envelope: Envelope, now: number): void => {
    const queue = queueOf(envelope.queue)
    const at = now + envelope.delayMillis
    put(
      {
        envelope,
        queue,
        order: ++lastOrder,
        body: envelope.body,
        dueAt: at,
        wakeAt: at,
        handle: undefined,
        home: queue.ready,
        position: -1
      },
      now
    )
  }

  const hold = (message: Message, handle: string, leaseMillis: number, now: number): Delivery => {
    const { body, dueAt, queue } = message
    const { expiresMillis, generation, id, task } = message.envelope
    message.wakeAt = now + leaseMillis
    move(message, queue.claimed)
    wake(queue, message.wakeAt)
    return { handle, id, task, generation, expiresMillis, queue: queue.name, ageMillis: now - dueAt, body }
  }

  const take = (message: Message, leaseMillis: number, now: number): Delivery => {
    const handle = `${++lastClaim}`
    disclaim(message)
    message.handle = handle
    claims.set(handle, message)
    return hold(message, handle, leaseMillis, now)
  }

  /** What a worker's last claim took, if it had that name, and still holds. */
  const heldBy = ({ isRetry, claimId, worker }: ClaimRequest): ReadonlyArray<string> => {
    const last = lastClaims.get(worker)
    if (isRetry !== true || last === undefined || last.claimId !== claimId) return []
    return last.handles.filter((handle) => claims.has(handle))
  }

  const claim = (asked: ClaimRequest, now: number): ReadonlyArray<Delivery> => {
    const { leaseMillis, max, claimId, queues: names, worker } = asked
    const candidates = known(names, now)
    const held = heldBy(asked)
    const taken = held.slice(0, max).map((handle) => hold(claims.get(handle)!, handle, leaseMillis, now))
    while (taken.length < max) {
      let best: Message | undefined
      for (const { ready } of candidates) {
        const first = ready.peek()
        if (first !== undefined && (best === undefined || inRank(first, best))) best = first
      }
      if (best === undefined) break
      taken.push(take(best, leaseMillis, now))
    }
    lastClaims.set(worker, { claimId, handles: [...taken.map(({ handle }) => handle), ...held.slice(max)] })
    return taken
  }

  const renew = (handle: string, leaseMillis: number, now: number): boolean => {
    const message = claims.get(handle)
    if (message === undefined) return false
    message.wakeAt = now + leaseMillis
    move(message, message.queue.claimed)
    wake(message.queue, message.wakeAt)
    return true
  }

  const ack = (handle: string): boolean => {
    const message = claims.get(handle)
    if (message === undefined) return false
    remove(message)
    return true
  }

  const release = ({ afterMillis, body, handle, preserveDueTime }: Release, now: number): void => {
    const message = claims.get(handle)
    if (message === undefined) return
    disclaim(message)
    if (body !== undefined) message.body = body
    message.wakeAt = now + afterMillis
    if (preserveDueTime !== true) message.dueAt = message.wakeAt
    put(message, now)
  }

  const countsOf = (name: string, now: number): QueueCounts => {
    const queue = queues.get(name)
    if (queue === undefined) return NOTHING
    promote(queue, now)
    return { ready: queue.ready.size, delayed: queue.delayed.size, claimed: queue.claimed.size }
  }

  const purge = (name: string, limit: number, now: number): ReadonlyArray<string> => {
    const removed: Array<string> = []
    for (const { delayed, ready } of known([name], now)) {
      while (removed.length < limit) {
        const message = ready.peek() ?? delayed.peek()
        if (message === undefined) break
        remove(message)
        removed.push(message.envelope.id)
      }
    }
    return removed
  }

  /** Waits for the next reason to claim. */
  const awaitReason = (listener: Listener, from: ReadonlyArray<Queue>): Effect.Effect<void> =>
    Clock.clockWith((clock) => {
      const now = clock.currentTimeMillisUnsafe()
      // closed before the scan, so that nothing that comes meanwhile is slept through
      listener.latch.closeUnsafe()
      listener.until = Infinity
      for (const queue of from) {
        promote(queue, now)
        listener.until = Math.min(
          listener.until,
          queue.delayed.peek()?.wakeAt ?? Infinity,
          queue.claimed.peek()?.wakeAt ?? Infinity
        )
      }
      if (listener.reason) {
        listener.reason = false
        return Effect.void
      }
      const woken =
        listener.until === Infinity
          ? listener.latch.await
          : Effect.raceFirst(listener.latch.await, clock.sleep(Duration.millis(listener.until - now)))
      // the latch opens in the midst of an operation; what else this turn brings is the same reason
      return Effect.andThen(Effect.andThen(woken, Effect.yieldNow), awaitReason(listener, from))
    })

  const at = <A>(f: (now: number) => A): Effect.Effect<A> =>
    Clock.clockWith((clock) => Effect.succeed(f(clock.currentTimeMillisUnsafe())))

  return {
    name: "memory",
    capabilities: {
      priorities: 256,
      repeatableClaims: true,
      lease: "store",
      maxDelayMillis: Number.MAX_SAFE_INTEGER
    },
    publish: (messages) =>
      at((now) => {
        for (const message of messages) publish(message, now)
      }),
    claim: (options) => at((now) => claim(options, now)),
    ready: (names) =>
      Stream.unwrap(
        Effect.gen(function* () {
          const from = Array.from(new Set(names), queueOf)
          // whoever comes looks once at what is there already
          const listener: Listener = { reason: true, until: Infinity, latch: Latch.makeUnsafe(false) }
          yield* Effect.acquireRelease(
            Effect.sync(() => from.forEach(({ listeners }) => listeners.add(listener))),
            () => Effect.sync(() => from.forEach(({ listeners }) => listeners.delete(listener)))
          )
          return Stream.fromEffectRepeat(awaitReason(listener, from))
        })
      ),
    renew: (handles, leaseMillis) => at((now) => handles.map((handle) => renew(handle, leaseMillis, now))),
    ack: (handles) => Effect.sync(() => handles.map(ack)),
    release: (releases) =>
      at((now) => {
        for (const one of releases) release(one, now)
      }),
    // nothing reads a message that was parked here: it is let go
    reject: (rejections) =>
      Effect.sync(() => {
        for (const { handle } of rejections) ack(handle)
      }),
    counts: (names) => at((now) => names.map((name) => countsOf(name, now))),
    purge: (name, limit) => at((now) => purge(name, limit, now))
  }
})
