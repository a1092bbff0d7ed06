namespace NbdKit.Client;

/// <summary>
/// What a server answers to one block status, context by context. Filled by the receiving loop, read by the caller after the
/// request has completed.
/// </summary>
internal sealed class BlockStatusReply
{
    private readonly List<(uint Context, int First)> _contexts = [];
    private readonly List<(long Length, ulong Status)> _descriptors = [];

    /// <summary>The only context asked for, or null for all that were granted.</summary>
    public uint? Only { get; private set; }

    /// <summary>The number of contexts answered.</summary>
    public int Contexts => _contexts.Count;

    /// <summary>The number of descriptors, over all contexts.</summary>
    public int Descriptors => _descriptors.Count;

    public void Begin(uint? only)
    {
        Only = only;
        _contexts.Clear();
        _descriptors.Clear();
    }

    /// <summary>Begins a context; false if it was answered before.</summary>
    public bool TryBeginContext(uint context)
    {
        foreach ((uint known, _) in _contexts)
        {
            if (known == context)
            {
                return false;
            }
        }
        _contexts.Add((context, _descriptors.Count));
        return true;
    }

    /// <summary>Adds the next descriptor of the context that was begun last.</summary>
    public void Add(long length, ulong status) => _descriptors.Add((length, status));

    /// <summary>Adds the extents of a context to a list, from an offset on, up to an end.</summary>
    public void CopyTo(uint context, long offset, long exportEnd, ExtentList extents)
    {
        int index = _contexts.FindIndex(c => c.Context == context);
        if (index < 0)
        {
            return;
        }
        int end = index + 1 < _contexts.Count ? _contexts[index + 1].First : _descriptors.Count;
        for (int i = _contexts[index].First; i < end && offset < exportEnd; i++)
        {
            (long length, ulong status) = _descriptors[i];
            // Beyond the end of the export there is nothing to tell about, whatever the server says.
            length = Math.Min(length, exportEnd - offset);
            extents.Add(offset, length, (ExtentStatus)status);
            offset += length;
        }
    }
}
