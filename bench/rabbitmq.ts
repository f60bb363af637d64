/** Where the systems on RabbitMQ are measured: two servers, messages in the one and results in Redis. */
import { remove } from "../test/rabbitmq/remove.ts"
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

/** A server that ran out of file handles by queues that were left would accept no connection any more. */
const removeQueues = async (url: string, prefix: string) => {
  const connection = await connect(url)
  const channel = await connection.createChannel()
  await channel.deleteQueue(floorQueue(prefix))
  await remove(channel, prefix)
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
