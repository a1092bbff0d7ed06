namespace NbdKit;

/// <summary>One layer opened once, as that layer sees it: what was opened, how, and for whom.</summary>
public class NbdOpenContext
{
    internal NbdOpenContext(
        NbdBackend backend, bool readOnly, string exportName, NbdConnection? connection, bool shared, bool isTls)
    {
        Backend = backend;
        ReadOnly = readOnly;
        ExportName = exportName;
        Connection = connection;
        IsShared = shared;
        IsTls = isTls;
    }

    /// <summary>The layer's place in the chain, stable from start to cleanup.</summary>
    public NbdBackend Backend { get; }

    /// <summary>Whether the context is opened read-only: it will never be asked to write.</summary>
    public bool ReadOnly { get; }

    /// <summary>The name of the export, with "" already replaced by the layer's default export.</summary>
    public string ExportName { get; }

    /// <summary>The client, or null for a shared context and for one that the host opened itself.</summary>
    public NbdConnection? Connection { get; }

    /// <summary>
    /// Whether the context is tied to no connection: it may serve any number of them, and background work.
    /// </summary>
    public bool IsShared { get; }

    /// <summary>
    /// Whether the client's connection is encrypted. Of a shared context, what its opener said
    /// (<see cref="NbdBackend.OpenSharedNextAsync"/>), else false.
    /// </summary>
    public bool IsTls { get; }
}
