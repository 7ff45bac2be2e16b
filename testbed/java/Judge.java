import java.io.*;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.clients.producer.internals.BuiltInPartitioner;
import org.apache.kafka.common.*;
import org.apache.kafka.common.acl.*;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.resource.*;
import org.apache.kafka.common.serialization.*;

/**
 * Does and reports what it is asked through Kafka's own Java clients. Argument: the bootstrap servers.
 *
 * A request is a line of words, a reply any number of lines of words and then "ok", or "error" and the reason.
 * Lines that begin with "+" in a reply are data, so that no data can be taken for the end. Bytes are "=" and
 * hexadecimal digits, or "-" where there are none; a text (a topic's name too) is its UTF-8 bytes; a record is
 * PARTITION TIMESTAMP KEY VALUE HEADERS, and HEADERS is "-" or KEY:VALUE joined by commas.
 * Records are not JSON, as a test reads millions of them.
 */
public final class Judge {
    private static final byte[] DIGITS = "0123456789abcdef".getBytes(StandardCharsets.US_ASCII);
    private static final long STALLED_AFTER_MS = 60_000;

    private final String servers;
    private final Admin admin;
    private final BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII), 1 << 16);
    private final OutputStream out = new BufferedOutputStream(new FileOutputStream(FileDescriptor.out), 1 << 18);
    private final Map<String, KafkaProducer<byte[], byte[]>> open = new HashMap<>();
    private KafkaProducer<byte[], byte[]> plain;
    private byte[] line = new byte[1 << 12];
    private int length;

    Judge(String servers) {
        this.servers = servers;
        this.admin = Admin.create(new HashMap<>(Map.of("bootstrap.servers", servers)));
    }

    public static void main(String[] arguments) throws Exception {
        new Judge(arguments[0]).serve();
    }

    private void serve() throws IOException {
        for (String request = in.readLine(); request != null; request = in.readLine()) {
            String answer = "ok";
            try {
                answer(request.split(" "));
            } catch (Throwable failed) {
                Throwable cause = failed instanceof java.util.concurrent.ExecutionException ? failed.getCause() : failed;
                answer = "error " + cause.toString().replaceAll("\\s+", " ");
            }
            out.write((answer + "\n").getBytes(StandardCharsets.UTF_8));
            out.flush();
        }
        // The owner is gone; what is open stays open, as after a crash.
        Runtime.getRuntime().halt(0);
    }

    private void answer(String[] w) throws Exception {
        switch (w[0]) {
            case "create" -> {
                Map<String, String> configs = new HashMap<>();
                for (int i = 3; i + 1 < w.length; i += 2) configs.put(text(w[i]), text(w[i + 1]));
                admin.createTopics(List.of(new NewTopic(text(w[1]), Optional.of(Integer.parseInt(w[2])), Optional.empty()).configs(configs))).all().get();
            }
            case "grow" -> admin.createPartitions(Map.of(text(w[1]), NewPartitions.increaseTo(Integer.parseInt(w[2])))).all().get();
            case "delete" -> admin.deleteTopics(List.of(text(w[1]))).all().get();
            case "truncate" -> {
                var at = new TopicPartition(text(w[1]), Integer.parseInt(w[2]));
                admin.deleteRecords(Map.of(at, RecordsToDelete.beforeOffset(Long.parseLong(w[3])))).all().get();
            }
            case "produce" -> send(plain(), records(text(w[1]), w[2]));
            case "compressed" -> {
                var records = records(text(w[2]), w[3]);
                try (var producer = producer(Map.of("compression.type", text(w[1])))) {
                    send(producer, records);
                }
            }
            case "transaction" -> {
                // All lines of a request are read before anything can fail, or the next one is misunderstood.
                var records = records(text(w[2]), w[3]);
                begin(text(w[1]), records);
                if (!w[4].equals("open")) end(text(w[1]), w[4].equals("commit"));
            }
            case "end" -> end(text(w[1]), w[2].equals("commit"));
            case "fence" -> admin.fenceProducers(List.of(text(w[1]))).all().get();
            case "read" -> read(text(w[1]), w[2]);
            case "offsets" -> offsets(text(w[1]));
            case "commit" -> {
                Map<TopicPartition, OffsetAndMetadata> to = new HashMap<>();
                for (int i = 3; i + 1 < w.length; i += 2)
                    to.put(new TopicPartition(text(w[2]), Integer.parseInt(w[i])), new OffsetAndMetadata(Long.parseLong(w[i + 1])));
                admin.alterConsumerGroupOffsets(text(w[1]), to).all().get();
            }
            case "group" -> admin.listConsumerGroupOffsets(text(w[1])).partitionsToOffsetAndMetadata().get().forEach((at, to) -> {
                if (to != null) say(bytes(at.topic().getBytes(StandardCharsets.UTF_8)) + " " + at.partition() + " " + to.offset());
            });
            case "transactions" -> {
                for (TransactionListing t : admin.listTransactions().all().get())
                    say(bytes(t.transactionalId().getBytes(StandardCharsets.UTF_8)) + " " + t.state() + " " + t.producerId());
            }
            case "leader" -> say("" + admin.describeTopics(List.of(text(w[1]))).allTopicNames().get().get(text(w[1])).partitions().get(Integer.parseInt(w[2])).leader().id());
            // It waits for one that has just died until the call is over.
            case "coordinator" -> say("" + admin.describeTransactions(List.of(text(w[1])), new DescribeTransactionsOptions().timeoutMs(2000)).all().get().get(text(w[1])).coordinatorId());
            case "allow" -> allow(w);
            case "scram" -> {
                var info = new ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096);
                admin.alterUserScramCredentials(List.of(new UserScramCredentialUpsertion(text(w[1]), info, text(w[2])))).all().get();
            }
            case "partition" -> say("" + BuiltInPartitioner.partitionForKey(bytes(w[1]), Integer.parseInt(w[2])));
            default -> throw new IllegalArgumentException("no such request: " + w[0]);
        }
    }

    private void allow(String[] w) throws Exception {
        var resource = new ResourcePattern(ResourceType.fromString(w[2]), text(w[3]), PatternType.LITERAL);
        List<AclBinding> all = new ArrayList<>();
        for (int i = 4; i < w.length; i++)
            all.add(new AclBinding(resource, new AccessControlEntry("User:" + text(w[1]), "*", AclOperation.fromString(w[i]), AclPermissionType.ALLOW)));
        admin.createAcls(all).all().get();
        // The broker hears of it a little later than the controller.
        while (!admin.describeAcls(AclBindingFilter.ANY).values().get().containsAll(all)) Thread.sleep(5);
    }

    // --- writing ---

    private KafkaProducer<byte[], byte[]> producer(Map<String, String> more) {
        Map<String, Object> settings = new HashMap<>(Map.of("bootstrap.servers", servers, "acks", "all", "linger.ms", 5, "batch.size", 1 << 17));
        settings.putAll(more);
        return new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer());
    }

    private KafkaProducer<byte[], byte[]> plain() {
        if (plain == null) plain = producer(Map.of());
        return plain;
    }

    private List<ProducerRecord<byte[], byte[]>> records(String topic, String count) throws IOException {
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (int i = Integer.parseInt(count); i > 0; i--) {
            String[] w = in.readLine().split(" ");
            int partition = Integer.parseInt(w[0]);
            long timestamp = Long.parseLong(w[1]);
            List<Header> headers = new ArrayList<>();
            if (!w[4].equals("-")) {
                for (String header : w[4].split(",")) {
                    String[] pair = header.split(":");
                    headers.add(new RecordHeader(text(pair[0]), bytes(pair[1])));
                }
            }
            records.add(new ProducerRecord<>(topic, partition < 0 ? null : partition, timestamp < 0 ? null : timestamp, bytes(w[2]), bytes(w[3]), headers));
        }
        return records;
    }

    /** Sends all and says where each record went. */
    private void send(KafkaProducer<byte[], byte[]> producer, List<ProducerRecord<byte[], byte[]>> records) throws Exception {
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        for (var record : records) sent.add(producer.send(record));
        producer.flush();
        for (var one : sent) say(one.get().partition() + " " + one.get().offset());
    }

    private void begin(String id, List<ProducerRecord<byte[], byte[]>> records) throws Exception {
        if (open.containsKey(id)) throw new IllegalStateException("the transaction " + id + " is open: end it first");
        var producer = producer(Map.of("transactional.id", id));
        try {
            producer.initTransactions();
            producer.beginTransaction();
            send(producer, records);
        } catch (Exception failed) {
            producer.close(Duration.ZERO);
            throw failed;
        }
        open.put(id, producer);
    }

    private void end(String id, boolean commit) {
        var producer = open.remove(id);
        if (producer == null) throw new IllegalStateException("no transaction " + id + " is open here");
        try {
            if (commit) producer.commitTransaction();
            else producer.abortTransaction();
        } finally {
            producer.close(Duration.ZERO);
        }
    }

    // --- reading ---

    private Map<TopicPartition, OffsetSpec> ask(String topic, OffsetSpec spec) throws Exception {
        int partitions = admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().size();
        Map<TopicPartition, OffsetSpec> ask = new TreeMap<>(Comparator.comparingInt(TopicPartition::partition));
        for (int p = 0; p < partitions; p++) ask.put(new TopicPartition(topic, p), spec);
        return ask;
    }

    private Map<TopicPartition, Long> ends(String topic, OffsetSpec spec, IsolationLevel level) throws Exception {
        Map<TopicPartition, Long> ends = new HashMap<>();
        var asked = ask(topic, spec);
        admin.listOffsets(asked, new ListOffsetsOptions(level)).all().get().forEach((at, info) -> ends.put(at, info.offset()));
        return ends;
    }

    private void offsets(String topic) throws Exception {
        var earliest = ends(topic, OffsetSpec.earliest(), IsolationLevel.READ_UNCOMMITTED);
        var stable = ends(topic, OffsetSpec.latest(), IsolationLevel.READ_COMMITTED);
        var high = ends(topic, OffsetSpec.latest(), IsolationLevel.READ_UNCOMMITTED);
        for (int p = 0; p < earliest.size(); p++) {
            var at = new TopicPartition(topic, p);
            say(p + " " + earliest.get(at) + " " + stable.get(at) + " " + high.get(at));
        }
    }

    private void read(String topic, String isolation) throws Exception {
        var end = ends(topic, OffsetSpec.latest(), IsolationLevel.valueOf(isolation.toUpperCase(Locale.ROOT)));
        // The last fetch, behind markers that nobody sees, waits for records that do not come: shortly.
        Map<String, Object> settings = new HashMap<>(Map.of(
            "bootstrap.servers", servers, "isolation.level", isolation, "enable.auto.commit", "false",
            "auto.offset.reset", "earliest", "fetch.max.wait.ms", 20, "max.poll.records", "20000", "max.partition.fetch.bytes", 8 << 20));
        try (var consumer = new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            consumer.assign(end.keySet());
            consumer.seekToBeginning(end.keySet());
            long progress = System.currentTimeMillis();
            while (end.entrySet().stream().anyMatch(e -> consumer.position(e.getKey()) < e.getValue())) {
                var records = consumer.poll(Duration.ofMillis(200));
                for (var record : records) {
                    // What came after the ends were asked for is not of this reading.
                    if (record.offset() < end.get(new TopicPartition(topic, record.partition()))) say(record);
                }
                if (!records.isEmpty()) progress = System.currentTimeMillis();
                if (System.currentTimeMillis() - progress > STALLED_AFTER_MS) throw new IllegalStateException("reading " + topic + " makes no progress");
            }
        }
    }

    // --- the protocol ---

    private void say(String words) {
        length = 0;
        put('+');
        for (int i = 0; i < words.length(); i++) put(words.charAt(i));
        flush();
    }

    private void say(ConsumerRecord<byte[], byte[]> record) {
        length = 0;
        put('+');
        number(record.partition());
        number(record.offset());
        number(record.timestamp());
        hex(record.key());
        put(' ');
        hex(record.value());
        put(' ');
        boolean first = true;
        for (Header header : record.headers()) {
            if (!first) put(',');
            first = false;
            hex(header.key().getBytes(StandardCharsets.UTF_8));
            put(':');
            hex(header.value());
        }
        if (first) put('-');
        flush();
    }

    private void flush() {
        put('\n');
        try {
            out.write(line, 0, length);
        } catch (IOException gone) {
            Runtime.getRuntime().halt(0);
        }
    }

    private void put(int b) {
        if (length == line.length) line = Arrays.copyOf(line, 2 * length);
        line[length++] = (byte) b;
    }

    private void number(long n) {
        String digits = Long.toString(n);
        for (int i = 0; i < digits.length(); i++) put(digits.charAt(i));
        put(' ');
    }

    private void hex(byte[] bytes) {
        put(bytes == null ? '-' : '=');
        if (bytes == null) return;
        for (byte b : bytes) {
            put(DIGITS[(b >> 4) & 15]);
            put(DIGITS[b & 15]);
        }
    }

    private static String bytes(byte[] bytes) {
        return "=" + HexFormat.of().formatHex(bytes);
    }

    private static byte[] bytes(String word) {
        return word.equals("-") ? null : HexFormat.of().parseHex(word, 1, word.length());
    }

    private static String text(String word) {
        return new String(bytes(word), StandardCharsets.UTF_8);
    }

    /** Loads the classes of everything a judge does, for the archive. */
    void rehearse() throws Exception {
        answer("create =74 1".split(" "));
        begin("id", List.of(new ProducerRecord<>("t", new byte[1], new byte[1])));
        end("id", true);
        send(plain(), List.of(new ProducerRecord<>("t", new byte[1], new byte[1])));
        for (String request : List.of("read =74 read_committed", "offsets =74", "transactions", "group =61", "partition =61 3")) answer(request.split(" "));
    }
}
