using NbdKit.Native;

namespace NbdKit;

/// <summary>
/// Something that may happen outside and after which a server is to stop: for <see cref="NbdServerOptions.StopWhen"/> and
/// <see cref="NbdKit.Filters.ExitwhenFilter"/> (nbdkit-exitwhen-filter(1)).
/// </summary>
public sealed class NbdExitEvent
{
    private readonly Func<CancellationToken, ValueTask<bool>> _look;

    private NbdExitEvent(string description, Func<CancellationToken, ValueTask<bool>> look)
    {
        Description = description;
        _look = look;
    }

    private NbdExitEvent(string description, Func<bool> look)
        : this(description, _ => new(look()))
    {
    }

    /// <summary>What it is, for logs.</summary>
    public string Description { get; }

    /// <summary>A file, or directory, is there.</summary>
    /// <param name="path">Its path; a relative one is resolved now.</param>
    /// <exception cref="ArgumentException">The path is empty.</exception>
    public static NbdExitEvent FileCreated(string path)
    {
        ArgumentException.ThrowIfNullOrWhiteSpace(path);
        string full = Path.GetFullPath(path);
        return new($"{full} was created", _ => ExistsAsync(full));
    }

    /// <summary>A file, or directory, is not there.</summary>
    /// <param name="path">Its path; a relative one is resolved now.</param>
    /// <exception cref="ArgumentException">The path is empty.</exception>
    public static NbdExitEvent FileDeleted(string path)
    {
        ArgumentException.ThrowIfNullOrWhiteSpace(path);
        string full = Path.GetFullPath(path);
        return new($"{full} was deleted", async _ => !await ExistsAsync(full).ConfigureAwait(false));
    }

    /// <summary>A process, which need not be a child of this one, has ended.</summary>
    /// <param name="processId">Its id. On Linux another process that gets the same id later is not mistaken for it.</param>
    /// <exception cref="ArgumentException">There is no such process.</exception>
    public static NbdExitEvent ProcessExits(int processId)
        => new($"process {processId} has ended", new WatchedProcess(processId).HasEnded);

    /// <summary>The other end of a pipe or of a socket was closed. What is in the pipe is not read.</summary>
    /// <param name="descriptor">The file descriptor of this end, which must stay open. On Unix systems.</param>
    /// <exception cref="ArgumentException">It is not an open descriptor.</exception>
    /// <exception cref="PlatformNotSupportedException">This is Windows.</exception>
    public static NbdExitEvent PipeClosed(int descriptor)
    {
        if (OperatingSystem.IsWindows())
        {
            throw new PlatformNotSupportedException("There are no file descriptors on Windows.");
        }
        if (!UnixPoll.IsOpen(descriptor))
        {
            throw new ArgumentException($"{descriptor} is not an open file descriptor.", nameof(descriptor));
        }
        return new($"the pipe {descriptor} was closed", () => UnixPoll.IsHungUp(descriptor));
    }

    /// <summary>A command ends with status 88. With 0 it has not happened yet; any other status is reported and means the same.</summary>
    /// <param name="command">The command, for /bin/sh. It is killed if nobody waits for it any more. On Unix systems.</param>
    /// <exception cref="ArgumentException">The command is empty.</exception>
    public static NbdExitEvent Script(string command)
    {
        ArgumentException.ThrowIfNullOrWhiteSpace(command);
        return new($"the script '{command}' said so", cancellationToken => ExitScript.RunAsync(command, cancellationToken));
    }

    /// <summary>A function of the host's says so.</summary>
    /// <param name="description">What it is, for logs.</param>
    /// <param name="look">
    /// Whether it has happened; called by one thread at a time, and not again before it has answered. What it throws is reported, and
    /// means no, as does an answer that takes longer than 30 seconds; its token fires then. It must not block the thread.
    /// </param>
    public static NbdExitEvent When(string description, Func<CancellationToken, ValueTask<bool>> look)
    {
        ArgumentNullException.ThrowIfNull(description);
        ArgumentNullException.ThrowIfNull(look);
        return new(description, look);
    }

    /// <summary>Looks whether it has happened.</summary>
    internal ValueTask<bool> HasHappenedAsync(CancellationToken cancellationToken) => _look(cancellationToken);

    // A file system that does not answer blocks a thread of the pool, and nobody else.
    private static async ValueTask<bool> ExistsAsync(string path)
    {
        await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        return Path.Exists(path);
    }
}
