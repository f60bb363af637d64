/**
 * How a task becomes a record and a message, so that a crash between the two loses nothing that was accepted.
 *
 * - With a key or an id of the caller's: the record reserves it (`published: false`), the message is sent, the
 *   reservation is marked. Whoever hits a reservation that is not marked sends the message again, under its id.
 * - Without: the message first, then the record. A crash between leaves a message whose run creates the record; the
 *   other order would leave a record that waits for ever.
 */
import { Context, Effect, Exit } from "effect"
import { Backend, BackendNotConfigured } from "../Backend.ts"
import type { Created, NewRecord } from "../BackendDriver.ts"
import { Broker } from "../Broker.ts"
import { type EnqueueError, IdempotencyConflict } from "../Task.ts"
import * as TaskMessage from "../TaskMessage.ts"
import * as metrics from "./metrics.ts"

/** A task to enqueue. */
export interface Item {
  readonly message: TaskMessage.TaskMessage
  readonly delayMillis: number
  readonly retentionMillis: number | undefined
  /** `undefined` where neither a key nor an id was given: nothing to hold the task to. */
  readonly reservation: { readonly key: string | undefined; readonly payloadHash: string } | undefined
}

/** What became of an item: the id of its task, which is another's where the key was taken. */
export type Answer = Exit.Exit<string, EnqueueError>

type Services = { readonly backend: Backend["Service"]; readonly broker: Broker["Service"] }

const publish = ({ broker }: Services, items: ReadonlyArray<Item>, ids: ReadonlyArray<string>) =>
  broker.publish.many(
    items.map(({ delayMillis, message }, i) => ({
      id: ids[i]!,
      task: message.task,
      queue: message.queue,
      priority: message.priority,
      delayMillis,
      body: TaskMessage.encode(ids[i] === message.id ? message : { ...message, id: ids[i]! })
    }))
  )

const recordOf = ({ message, reservation, retentionMillis }: Item): NewRecord => ({
  id: message.id,
  task: message.task,
  key: reservation?.key,
  payloadHash: reservation?.payloadHash ?? "",
  expiresMillis: message.expires,
  retentionMillis,
  published: reservation === undefined
})

/** Message, then record. */
const plain = Effect.fnUntraced(function* (services: Services, items: ReadonlyArray<Item>) {
  const ids = items.map(({ message }) => message.id)
  const published = yield* publish(services, items, ids)
  if (!services.backend.configured) return published.map((exit, i): Answer => Exit.map(exit, () => ids[i]!))
  const sent = items.filter((_, i) => Exit.isSuccess(published[i]!))
  const created = yield* services.backend.create.many(sent.map(recordOf))
  let next = 0
  return published.map((exit, i): Answer => {
    const last: Exit.Exit<unknown, EnqueueError> = Exit.isSuccess(exit) ? created[next++]! : exit
    return Exit.map(last, () => ids[i]!)
  })
})

/** Reservation, message, mark. */
const reserved = Effect.fnUntraced(function* (services: Services, items: ReadonlyArray<Item>) {
  if (!services.backend.configured) {
    return items.map(({ message, reservation }): Answer =>
      Exit.fail(
        new BackendNotConfigured({
          taskId: message.id,
          operation:
            reservation?.key === undefined ? "a task with an id of its own" : "a task with an idempotency key"
        })
      )
    )
  }
  const created = yield* services.backend.create.many(items.map(recordOf))
  const answers = items.map((item, i): Answer => {
    const answer = created[i]!
    return Exit.isSuccess(answer) ? holder(item, answer.value) : Exit.map(answer, () => item.message.id)
  })
  const toSend = items.flatMap((_, i) => (mustSend(created[i]!) && Exit.isSuccess(answers[i]!) ? [i] : []))
  if (toSend.length === 0) return answers
  const idOf = (i: number) => (answers[i] as Exit.Success<string>).value
  const published = yield* publish(
    services,
    toSend.map((i) => items[i]!),
    toSend.map(idOf)
  )
  const sent = toSend.filter((_, n) => Exit.isSuccess(published[n]!))
  toSend.forEach((i, n) => {
    if (Exit.isFailure(published[n]!)) answers[i] = published[n] as Exit.Exit<never, EnqueueError>
  })
  const marked = yield* services.backend.markPublished.many(sent.map(idOf))
  sent.forEach((i, n) => {
    if (Exit.isFailure(marked[n]!)) answers[i] = marked[n] as Exit.Exit<never, EnqueueError>
  })
  return answers
})

const mustSend = (created: Exit.Exit<Created, unknown>): boolean =>
  Exit.isSuccess(created) && (created.value._tag === "Created" || !created.value.published)

/** The id under which the task goes, unless it is taken by another payload. */
const holder = ({ message, reservation }: Item, created: Created): Answer => {
  if (created._tag === "Created") return Exit.succeed(message.id)
  return created.same
    ? Exit.succeed(created.id)
    : Exit.fail(
        new IdempotencyConflict({
          taskId: created.id,
          taskName: message.task,
          key: reservation?.key ?? message.id
        })
      )
}

/** Enqueues tasks of one definition; each has its own answer, in order. */
export const enqueue = (
  items: ReadonlyArray<Item>
): Effect.Effect<ReadonlyArray<Answer>, never, Broker | Backend> =>
  Effect.withFiber((fiber) => {
    const services: Services = {
      backend: Context.getUnsafe(fiber.context, Backend),
      broker: Context.getUnsafe(fiber.context, Broker)
    }
    const way = items[0]?.reservation === undefined ? plain : reserved
    return Effect.map(way(services, items), (answers) => {
      const sent = answers.reduce((n, answer) => (Exit.isSuccess(answer) ? n + 1 : n), 0)
      if (sent > 0)
        metrics.forQueue(services.broker.name, items[0]!.message.queue).sent.updateUnsafe(sent, fiber.context)
      return answers
    })
  })
