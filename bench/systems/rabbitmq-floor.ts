/** The fastest that amqplib allows: only a quorum queue, confirms and batched acks. */
import type { Channel, ConsumeMessage } from "amqplib"
import { forEach, makeCounter, roundTrips } from "../calls.ts"
import { connect, floorQueue, parseLocation } from "../rabbitmq.ts"
import type { Payload, RunningWorker, Session, System, WorkOptions } from "../system.ts"

interface Properties {
  readonly messageId: string
  /** The queue for the reply. */
  readonly replyTo?: string
}

interface Done {
  readonly message: ConsumeMessage
  readonly value: number
  readonly arrived: number
}

/** The reply to a message. */
type Answer = readonly [id: string, value: number, arrived: number]

/** Milliseconds of CLOCK_MONOTONIC, which all processes of a machine share. */
const now = () => Number(process.hrtime.bigint()) / 1e6

const sleep = (millis: number) => new Promise<void>((resolve) => setTimeout(resolve, millis))

/**
 * For use after the consumers' channels are closed. Their unacked messages are back in the queue then: the queue
 * requeues them in the step that removes its last consumer. (It does not count the messages that a consumer has.)
 */
const expectEmpty = async (channel: Channel, queue: string) => {
  for (;;) {
    const { consumerCount, messageCount } = await channel.checkQueue(queue)
    if (messageCount > 0) throw new Error(`${messageCount} messages are still in the queue`)
    if (consumerCount === 0) return
    await sleep(1)
  }
}

const open = async (location: string): Promise<Session> => {
  const { url, prefix } = parseLocation(location)
  const queue = floorQueue(prefix)
  const connection = await connect(url)
  const publisher = await connection.createConfirmChannel()
  await publisher.assertQueue(queue, { durable: true, arguments: { "x-queue-type": "quorum" } })
  let unroutable = 0
  publisher.on("return", () => unroutable++) // arrives before the message's confirm
  const processed = new Set<string>()
  let lastId = 0
  const makeId = () => `${process.pid}-${++lastId}`

  const send = (payload: Payload, properties: Properties, onConfirm?: (error: Error | null) => void) =>
    publisher.publish(
      "",
      queue,
      Buffer.from(JSON.stringify(payload)),
      { ...properties, persistent: true, mandatory: true },
      onConfirm
    )
  const expectRouted = () => {
    if (unroutable > 0) throw new Error(`${unroutable} messages came back: no queue`)
  }
  const add = async (payload: Payload, properties: Properties = { messageId: makeId() }) => {
    await new Promise<void>((resolve, reject) =>
      send(payload, properties, (error) => (error ? reject(error) : resolve()))
    )
    expectRouted()
    return properties.messageId
  }
  const addAll = async (payloads: ReadonlyArray<Payload>) => {
    const ids = payloads.map((payload) => {
      const messageId = makeId()
      send(payload, { messageId })
      return messageId
    })
    await publisher.waitForConfirms()
    expectRouted()
    return ids
  }
  /** Fails unless all messages that `enqueue` adds are in the queue afterwards. No worker runs meanwhile. */
  const counted = async <A>(count: number, enqueue: () => Promise<A>) => {
    const before = await publisher.checkQueue(queue)
    const result = await enqueue()
    const after = await publisher.checkQueue(queue)
    const added = after.messageCount - before.messageCount
    if (added !== count) throw new Error(`${added} of ${count} messages are in the queue`)
    return result
  }

  const work = async ({ concurrency, sleepMillis }: WorkOptions): Promise<RunningWorker> => {
    const counter = makeCounter()
    const channel = await connection.createChannel()
    let closing: Promise<void> | undefined
    const close = () => (closing ??= channel.close())
    let done: Array<Done> = []

    const answer = (settled: ReadonlyArray<Done>) => {
      const answers = new Map<string, Array<Answer>>()
      for (const { arrived, message, value } of settled) {
        const { messageId, replyTo } = message.properties
        if (replyTo === undefined) continue
        const answered: Answer = [messageId, value, arrived]
        const others = answers.get(replyTo)
        if (others) others.push(answered)
        else answers.set(replyTo, [answered])
      }
      for (const [replyTo, all] of answers) channel.sendToQueue(replyTo, Buffer.from(JSON.stringify(all)))
    }
    /** The messages of one turn of the event loop. They finish in the order of arrival, so one ack covers all of them. */
    const settleDone = () => {
      const settled = done
      done = []
      const last = settled.at(-1)
      if (last === undefined || closing) return
      channel.ack(last.message, true)
      answer(settled)
      for (const { message } of settled) processed.add(message.properties.messageId)
      counter.add(settled.length)
    }
    const finish = (message: ConsumeMessage, arrived: number) => {
      const { value } = JSON.parse(message.content.toString()) as Payload
      if (done.push({ message, value, arrived }) === 1) setImmediate(settleDone)
    }
    const begin = (message: ConsumeMessage | null) => {
      const arrived = now()
      if (message === null) throw new Error("the consumer was cancelled")
      if (sleepMillis === 0) finish(message, arrived)
      else setTimeout(finish, sleepMillis, message, arrived)
    }
    await channel.prefetch(concurrency)
    await channel.consume(queue, begin)
    return {
      finished: async (count) => {
        await counter.reached(count)
        await close()
        await expectEmpty(publisher, queue)
      },
      stop: close
    }
  }

  const waiting = new Map<string, (answer: Answer) => void>()
  const consumeAnswers = async () => {
    const channel = await connection.createChannel()
    const { queue: answers } = await channel.assertQueue("", {
      exclusive: true,
      autoDelete: true,
      durable: false
    })
    const receive = (message: ConsumeMessage | null) => {
      if (message === null) throw new Error("the consumer of answers was cancelled")
      for (const answer of JSON.parse(message.content.toString()) as ReadonlyArray<Answer>) {
        waiting.get(answer[0])?.(answer)
        waiting.delete(answer[0])
      }
    }
    await channel.consume(answers, receive, { noAck: true })
    return answers
  }
  let answers: Promise<string> | undefined
  const call = async (payload: Payload, replyTo: string) => {
    const messageId = makeId()
    const answer = new Promise<Answer>((resolve) => waiting.set(messageId, resolve))
    const sent = now()
    const [[, value, arrived]] = await Promise.all([answer, add(payload, { messageId, replyTo })])
    return { value, millis: arrived - sent }
  }

  return {
    oneByOne: (payloads) =>
      counted(payloads.length, async () => {
        for (const payload of payloads) await add(payload)
      }),
    concurrently: (payloads, inFlight) =>
      counted(payloads.length, () => forEach(payloads, inFlight, (payload) => add(payload))),
    bulk: (chunks) =>
      counted(chunks.flat().length, async () => {
        const ids: Array<string> = []
        for (const payloads of chunks) ids.push(...(await addAll(payloads)))
        return ids
      }),
    work,
    roundTrips: async (options) => {
      const replyTo = await (answers ??= consumeAnswers())
      const oneWay: Array<number> = []
      const latencies = await roundTrips(options, async (payload) => {
        const { millis, value } = await call(payload, replyTo)
        oneWay.push(millis)
        return value
      })
      return options.callers === 1 ? oneWay : latencies
    },
    check: async (ids) => {
      await expectEmpty(publisher, queue)
      return ids.filter((id) => processed.has(String(id))).length
    },
    close: () => connection.close()
  }
}

export const floor: System = {
  note:
    "bare amqplib 2.3.1, no Effect and no Redis: a durable quorum queue, persistent messages, mandatory, each confirmed;" +
    " it stores no results. W1b: 64 unconfirmed at once, W1c: 1,000 published, then waitForConfirms. W2: prefetch =" +
    " concurrency, one ack for all messages of one turn of the event loop; it ends when the channel is closed after the" +
    " acks and no message has come back into the queue. W3a: not the round trip, but the time from the call of publish in" +
    " the producer to the message's arrival in the worker, read from CLOCK_MONOTONIC in both; the next is published" +
    " when this one is confirmed and answered. W3b, W4: round trips; the worker answers those of a turn in one message," +
    " not persistent, to an exclusive classic queue of the producer (noAck), and this answer is the only copy of a" +
    " result. It counts no attempts and keeps no task states.",
  open
}
