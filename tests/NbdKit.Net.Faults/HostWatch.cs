using System.Diagnostics;

namespace NbdKit.Faults;

/// <summary>What the host must not feel: exceptions that nobody observed, and descriptors or threads that stay behind.</summary>
internal sealed class HostWatch : IDisposable
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(5);

    // The runtime's own: its event loop and its source of randomness open some, once.
    private const int OwnDescriptors = 12;

    private readonly Lock _lock = new();
    private readonly List<Exception> _escaped = [];
    private readonly HashSet<string> _descriptors = [.. Descriptors()];
    private readonly int _threads = ServerThreads();

    public HostWatch()
    {
        TaskScheduler.UnobservedTaskException += OnUnobserved;
        AppDomain.CurrentDomain.UnhandledException += OnUnhandled;
    }

    /// <summary>Fails if something escaped, or (if asked to look) if something stayed behind.</summary>
    public async Task CheckAsync(bool leavesNothing)
    {
        // Twice: the first collection lets finalizers find tasks that failed, the second what those held.
        for (int i = 0; i < 2; i++)
        {
            GC.Collect();
            GC.WaitForPendingFinalizers();
        }
        lock (_lock)
        {
            if (_escaped.Count > 0)
            {
                throw new InvalidOperationException($"{_escaped.Count} exceptions reached the host; the first: {_escaped[0]}");
            }
        }
        var watch = Stopwatch.StartNew();
        while (leavesNothing)
        {
            string[] descriptors = [.. Descriptors().Except(_descriptors)];
            int threads = ServerThreads();
            if (descriptors.Length <= OwnDescriptors && threads <= _threads)
            {
                return;
            }
            if (watch.Elapsed > Patience + ThreadsRetire)
            {
                throw new InvalidOperationException(
                    $"{threads} threads of the library run, {_threads} did; {descriptors.Length} descriptors stayed: {string.Join(", ", descriptors)}.");
            }
            await Task.Delay(50);
        }
    }

    public void Dispose()
    {
        TaskScheduler.UnobservedTaskException -= OnUnobserved;
        AppDomain.CurrentDomain.UnhandledException -= OnUnhandled;
    }

    // A thread that served a connection waits ten seconds for the next one.
    private static TimeSpan ThreadsRetire => TimeSpan.FromSeconds(10);

    /// <summary>What is open, each as number and target; assemblies do not count.</summary>
    private static IEnumerable<string> Descriptors()
        => OperatingSystem.IsLinux()
            ? Directory.GetFileSystemEntries("/proc/self/fd")
                .Select(path => $"{Path.GetFileName(path)} {new FileInfo(path).LinkTarget}")
                .Where(descriptor => !descriptor.EndsWith(".dll", StringComparison.Ordinal))
            : [];

    private static int ServerThreads()
        => OperatingSystem.IsLinux()
            ? Directory.GetDirectories("/proc/self/task").Count(task => NameOf(task).StartsWith("NBD ", StringComparison.Ordinal))
            : 0;

    private static string NameOf(string task)
    {
        try
        {
            return File.ReadAllText(Path.Combine(task, "comm"));
        }
        catch (IOException)
        {
            // It has ended meanwhile.
            return "";
        }
    }

    private void OnUnobserved(object? sender, UnobservedTaskExceptionEventArgs args) => Add(args.Exception);

    private void OnUnhandled(object sender, UnhandledExceptionEventArgs args) => Add((Exception)args.ExceptionObject);

    private void Add(Exception exception)
    {
        lock (_lock)
        {
            _escaped.Add(exception);
        }
    }
}
