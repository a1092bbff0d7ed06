namespace NbdKit;

/// <summary>
/// How many calls a layer takes at once, tightest first. The model of a chain is the tightest of its layers.
/// </summary>
/// <remarks>
/// All models are asynchronous gates: no thread waits in them, and a client that is slow in its handshake holds none of
/// them (nbdkit: "Threads" in nbdkit-plugin(3)).
/// </remarks>
public enum ThreadModel
{
    /// <summary>One open context at a time, and one call at a time. Other clients wait when they open the export.</summary>
    SerializeConnections,

    /// <summary>Many connections, but one call at a time over all of them.</summary>
    SerializeAllRequests,

    /// <summary>One call at a time on each context; calls on different contexts run in parallel.</summary>
    SerializeRequests,

    /// <summary>Calls run in parallel, replies reach the client in the order of its requests.</summary>
    SerializeRetirement,

    /// <summary>Anything at once; replies reach the client in the order in which calls finish.</summary>
    Parallel,
}
