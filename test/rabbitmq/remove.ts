import type { Channel } from "amqplib"
import * as delayQueues from "../../src/rabbitmq/delayQueues.ts"
import { Names } from "../../src/rabbitmq/Names.ts"

/** Removes everything that a prefix has for these queues, and its exchanges. Missing ones are ignored. */
export const remove = async (
  channel: Channel,
  prefix: string,
  queues: Iterable<string> = ["default"]
): Promise<void> => {
  const names = new Names(prefix)
  const serverQueuesOf = (queue: string) => [
    names.queue(queue),
    names.rejectedQueue(queue),
    ...delayQueues.exponents.map((exponent) => names.delayQueue(queue, exponent))
  ]
  for (const name of [...queues].flatMap(serverQueuesOf)) await channel.deleteQueue(name)
  await channel.deleteQueue(names.discardQueue)
  await channel.deleteExchange(names.marksExchange)
  for (const exponent of [...delayQueues.exponents, delayQueues.LOWEST_EXPONENT - 1]) {
    await channel.deleteExchange(names.delayExchange(exponent))
  }
}
