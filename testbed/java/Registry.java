import java.io.IOException;

/**
 * A schema registry that does not outlive its owner: when stdin ends, the owner is gone, and the registry goes too.
 * What it runs is in the class path; it is named here as text, so that this compiles without it.
 */
public final class Registry {
    public static void main(String[] arguments) throws Exception {
        Thread watch = new Thread(() -> {
            try {
                while (System.in.read() >= 0) {}
            } catch (IOException gone) {
                // Nothing is left to be told.
            } finally {
                Runtime.getRuntime().halt(0);
            }
        });
        watch.setDaemon(true);
        watch.start();
        Class.forName("io.quarkus.runner.GeneratedMain").getMethod("main", String[].class).invoke(null, (Object) arguments);
    }
}
