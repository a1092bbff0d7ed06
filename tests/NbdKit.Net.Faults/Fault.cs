namespace NbdKit.Faults;

/// <summary>One row of the fault matrix: something that clients, plugins or the machine do to a server, and what must hold meanwhile.</summary>
internal abstract class Fault
{
    /// <summary>The row's number, such as F03.</summary>
    public abstract string Id { get; }

    /// <summary>What is done, in a few words.</summary>
    public abstract string Title { get; }

    /// <summary>How long the row may take at its gate size before it counts as hung.</summary>
    public virtual TimeSpan GateLimit => TimeSpan.FromMinutes(10);

    /// <summary>Variables for the process that the row runs in, such as limits of the runtime.</summary>
    public virtual IReadOnlyDictionary<string, string> Environment => new Dictionary<string, string>();

    /// <summary>Whether files, threads and sockets must be back to where they were when the row has ended.</summary>
    public virtual bool LeavesNothing => true;

    /// <summary>Runs the row in a process of its own. Fails by any exception but <see cref="FaultSkippedException"/>.</summary>
    /// <returns>The figures that were seen, in one line.</returns>
    public abstract Task<string> RunAsync(FaultRun run);
}
