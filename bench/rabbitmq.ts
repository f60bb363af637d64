/** Where the systems on RabbitMQ are measured: two servers, messages in the one and results in Redis. */
import { makePrefix as makeRedisPrefix, parseLocation as parseRedis } from "./redis.ts"

export interface RabbitmqLocation {
  readonly url: string
  readonly redisUrl: string
  /** Letters, digits and `-`: begins the names of queues, and of keys in Redis. */
  readonly prefix: string
}

const server = process.env["CHICORY_TEST_RABBITMQ_URL"] ?? "amqp://guest:guest@127.0.0.1:5672"

/** A location is RabbitMQ's URL, a blank, and the location on Redis. */
export const parseLocation = (location: string): RabbitmqLocation => {
  const [url = "", redis = ""] = location.split(" ")
  const { prefix, url: redisUrl } = parseRedis(redis)
  return { url, redisUrl, prefix }
}

/** Without `noDelay` the kernel keeps what is sent back for 40 ms. */
export const connect = async (url: string) => {
  const amqplib = await import("amqplib")
  const connection = await amqplib.connect(url, { noDelay: true })
  connection.on("error", (error) => console.error(error))
  return connection
}

export const floorQueue = (prefix: string) => `${prefix}.floor`

/**
 * TO BE COMPLETED: what chicory declares is for `deleteAll` of src/rabbitmq to delete. Until there is one, the names
 * are these. What is not there is no error. Nothing may be left: a server has file descriptors for 300 quorum queues.
 */
const removeQueues = async (url: string, prefix: string) => {
  const { Names } = await import("../src/rabbitmq/Topology.ts")
  const { exponents, lowest } = await import("../src/rabbitmq/Delay.ts")
  const names = new Names(prefix)
  const queue = "default"
  const delayed = exponents.map((exponent) => names.delayed(queue, exponent))
  const queues = [floorQueue(prefix), names.queue(queue), names.rejected(queue), names.nowhere, ...delayed]
  const exchanges = [lowest - 1, ...exponents].map((exponent) => names.delay(exponent))
  const connection = await connect(url)
  const channel = await connection.createChannel()
  for (const name of queues) await channel.deleteQueue(name)
  for (const name of [names.marks, ...exchanges]) await channel.deleteExchange(name)
  await connection.close()
}

/** Fails where one of the servers is missing. */
export const makePrefix = async () => {
  await (await connect(server)).close()
  const redis = await makeRedisPrefix()
  const { prefix } = parseRedis(redis.location)
  return {
    location: `${server} ${redis.location}`,
    remove: async () => {
      await Promise.all([removeQueues(server, prefix), redis.remove()])
    }
  }
}
