import java.io.File;
import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import javax.management.ObjectName;
import kafka.server.KafkaConfig;
import kafka.server.KafkaRaftServer;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.utils.Time;
import org.apache.kafka.common.utils.Utils;

/**
 * One Kafka node that does not outlive its owner: when stdin ends, the owner is gone, and the node and its
 * folder go too. A line on stdin asks for an orderly end. Arguments: server.properties, the folder.
 *
 * The hard case is the restart after a kill. The controller remembers the dead broker as alive and refuses the
 * new one until the session times out, and that timeout is long, so that a busy machine does not fence a
 * broker that lives. So before the node itself, its controller alone is started with a short timeout: it
 * fences the dead broker, as it would have done later. In a cluster the other controllers do so.
 */
public final class Broker {
    private static final long FENCED_WITHIN_MS = 30_000;

    public static void main(String[] arguments) throws Exception {
        watch(arguments[1]);
        start(arguments[0]);
    }

    static void start(String file) throws Exception {
        Properties properties = Utils.loadProps(file);
        String voters = properties.getProperty("controller.quorum.voters");
        boolean alone = !voters.contains(",");
        if (new File(properties.getProperty("log.dirs"), "meta.properties").exists()) {
            if (alone) fence(properties);
        } else {
            // The nodes of a cluster must agree on its id.
            Uuid id = alone ? Uuid.randomUuid() : new Uuid(voters.hashCode(), voters.length());
            String[] format = {"format", "-t", id.toString(), "-c", file};
            if (kafka.tools.StorageTool.execute(format, System.out) != 0) System.exit(1);
        }
        // What is ready after this line is the node, not the controller that was alone.
        System.out.println("the node itself starts");
        kafka.Kafka.main(new String[] {file});
    }

    private static void watch(String folder) {
        daemon(() -> {
            try {
                while (true) {
                    int read = System.in.read();
                    if (read < 0) break;
                    // By another thread, as it may take its time: the owner is watched until the end.
                    if (read == '\n') daemon(() -> System.exit(0));
                }
                // By a process that waits for the end of this one, which is that of its stdin: until then the
                // node writes, and a folder that is written to cannot be removed.
                new ProcessBuilder("sh", "-c", "read -r nothing; rm -rf \"$0\"", folder).start();
            } catch (IOException gone) {
                // Nothing is left to be told.
            } finally {
                Runtime.getRuntime().halt(0);
            }
        });
    }

    private static void daemon(Runnable work) {
        Thread thread = new Thread(work);
        thread.setDaemon(true);
        thread.start();
    }

    private static void fence(Properties properties) throws Exception {
        Map<String, String> alone = new HashMap<>();
        properties.forEach((name, value) -> alone.put((String) name, (String) value));
        alone.put("process.roles", "controller");
        alone.put("listeners", "CONTROLLER://" + alone.get("controller.quorum.voters").split("@")[1]);
        alone.remove("advertised.listeners");
        alone.remove("inter.broker.listener.name");
        alone.put("broker.session.timeout.ms", "100");
        KafkaRaftServer controller = new KafkaRaftServer(new KafkaConfig(alone), Time.SYSTEM);
        controller.startup();
        ObjectName fenced = new ObjectName("kafka.controller:type=KafkaController,name=FencedBrokerCount");
        long until = System.currentTimeMillis() + FENCED_WITHIN_MS;
        while (((Number) ManagementFactory.getPlatformMBeanServer().getAttribute(fenced, "Value")).intValue() == 0) {
            if (System.currentTimeMillis() > until) throw new IllegalStateException("the broker that died is not fenced");
            Thread.sleep(10);
        }
        controller.shutdown();
        controller.awaitShutdown();
    }
}
