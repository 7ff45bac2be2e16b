import java.io.File;
import java.io.FileOutputStream;
import java.nio.file.Files;
import java.util.jar.JarEntry;
import java.util.jar.JarOutputStream;

/**
 * What is done once after compiling. "pack FOLDER JAR" makes a jar of the classes (a runtime without a
 * development kit has no tool for it). "rehearse server.properties BOOTSTRAP" starts a broker, uses it as the
 * judge does and ends: the virtual machine then archives every class that was loaded, which halves later starts.
 */
public final class Prepare {
    public static void main(String[] arguments) throws Exception {
        if (arguments[0].equals("pack")) {
            pack(new File(arguments[1]), arguments[2]);
            return;
        }
        Thread node = new Thread(() -> {
            try {
                Broker.start(arguments[1]);
            } catch (Exception failed) {
                failed.printStackTrace();
                Runtime.getRuntime().halt(1);
            }
        });
        node.setDaemon(true);
        node.start();
        // Its clients wait for the broker.
        new Judge(arguments[2]).rehearse();
        System.exit(0);
    }

    private static void pack(File classes, String jar) throws Exception {
        try (JarOutputStream out = new JarOutputStream(new FileOutputStream(jar))) {
            for (File file : classes.listFiles()) {
                out.putNextEntry(new JarEntry(file.getName()));
                Files.copy(file.toPath(), out);
                out.closeEntry();
            }
        }
    }
}
