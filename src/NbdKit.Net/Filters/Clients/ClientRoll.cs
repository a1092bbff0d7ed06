namespace NbdKit.Filters.Clients;

/// <summary>
/// The clients of a filter: each from when it was entered until its connection has ended and the contexts that hold it are closed.
/// </summary>
/// <param name="lastLeft">Called when nobody is left, with who was the last; on any thread, and with no lock held.</param>
internal sealed class ClientRoll(Action<NbdConnection>? lastLeft = null)
{
    private readonly Lock _lock = new();
    private readonly Dictionary<NbdConnection, int> _holds = [];

    public int Count
    {
        get
        {
            lock (_lock)
            {
                return _holds.Count;
            }
        }
    }

    /// <summary>Enters a client, unless there are so many already and it is none of them.</summary>
    public bool TryEnter(NbdConnection client, int limit = int.MaxValue)
    {
        lock (_lock)
        {
            if (_holds.ContainsKey(client))
            {
                return true;
            }
            if (_holds.Count >= limit)
            {
                return false;
            }
            _holds.Add(client, 1);
        }
        // At once if it has ended already.
        client.Aborted.UnsafeRegister(
            static state =>
            {
                var (roll, gone) = (Tuple<ClientRoll, NbdConnection>)state!;
                roll.Release(gone);
            },
            Tuple.Create(this, client));
        return true;
    }

    /// <summary>Enters a client and keeps it until <see cref="Release"/>, even if its connection ends before.</summary>
    public bool TryHold(NbdConnection client, int limit = int.MaxValue)
    {
        if (!TryEnter(client, limit))
        {
            return false;
        }
        lock (_lock)
        {
            _holds[client] = _holds.GetValueOrDefault(client) + 1;
        }
        return true;
    }

    public void Release(NbdConnection client)
    {
        bool wasLast = false;
        lock (_lock)
        {
            if (--_holds[client] == 0)
            {
                _holds.Remove(client);
                wasLast = _holds.Count == 0;
            }
        }
        if (wasLast)
        {
            lastLeft?.Invoke(client);
        }
    }
}
