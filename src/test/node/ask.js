// Sends one prompt to a Millrace worker and prints its completion as JSON.
//
//   node ask.js --bootstrap HOST:PORT --registry URL [--prompts TOPIC] [--completions TOPIC]
//               [--schema FILE] [--timeout SECONDS] "What is 345 + 287?"
//
// URL is the address of the registry's Confluent-compatible interface. FILE is PromptEvent.avsc of
// this project; it is only needed as long as nobody has registered the schema.
import { readFileSync } from 'node:fs';
import { randomUUID } from 'node:crypto';
import { parseArgs } from 'node:util';
import kafkajs from 'kafkajs';
import confluent from '@kafkajs/confluent-schema-registry';

const { Kafka, logLevel } = kafkajs;
const { SchemaRegistry, SchemaType, COMPATIBILITY } = confluent;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    bootstrap: { type: 'string' },
    registry: { type: 'string' },
    prompts: { type: 'string', default: 'millrace.prompts' },
    completions: { type: 'string', default: 'millrace.completions' },
    schema: { type: 'string' },
    timeout: { type: 'string', default: '60' },
  },
});
if (!values.bootstrap || !values.registry || positionals.length !== 1) {
  console.error('usage: node ask.js --bootstrap HOST:PORT --registry URL "TEXT"');
  process.exit(2);
}

const kafka = new Kafka({
  clientId: 'millrace-node-client',
  brokers: [values.bootstrap],
  logLevel: logLevel.ERROR,
});
const registry = new SchemaRegistry({ host: values.registry });

async function promptSchemaId() {
  const subject = `${values.prompts}-value`;
  if (values.schema) {
    const schema = readFileSync(values.schema, 'utf8');
    // The compatibility that the worker's own schemas are held to.
    const options = { subject, compatibility: COMPATIBILITY.FULL_TRANSITIVE };
    return (await registry.register({ type: SchemaType.AVRO, schema }, options)).id;
  }
  return registry.getLatestSchemaId(subject);
}

async function main() {
  const id = `node-${randomUUID()}`;
  const consumer = kafka.consumer({ groupId: id });
  await consumer.connect();
  await consumer.subscribe({ topic: values.completions, fromBeginning: true });
  const completion = new Promise((resolve, reject) => {
    setTimeout(
      () => reject(new Error(`no completion of ${id} within ${values.timeout} s`)),
      Number(values.timeout) * 1000,
    ).unref();
    consumer
      .run({
        eachMessage: async ({ message }) => {
          const event = await registry.decode(message.value);
          if (event.promptId === id) {
            resolve(event);
          }
        },
      })
      .catch(reject);
  });

  const producer = kafka.producer();
  await producer.connect();
  // What is left out takes the default that the schema gives it.
  const prompt = { id, messages: [{ role: 'USER', content: positionals[0] }] };
  await producer.send({
    topic: values.prompts,
    messages: [{ key: id, value: await registry.encode(await promptSchemaId(), prompt) }],
  });
  await producer.disconnect();

  console.log(JSON.stringify(await completion));
  await consumer.disconnect();
}

main().then(
  () => process.exit(0),
  (error) => {
    console.error(`ask.js: ${error.message}`);
    process.exit(1);
  },
);
