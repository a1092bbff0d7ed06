namespace NbdKit.Layers;

/// <summary>The chains that a plugin is made of, from the start of the plugin to its end.</summary>
internal sealed class ChainSet(string owner, IEnumerable<NbdBackend> chains)
{
    private readonly List<NbdBackend> _started = [];
    private NbdBackend? _holder;

    /// <summary>The chains in order, each once.</summary>
    public IReadOnlyList<NbdBackend> Chains { get; } = [.. chains.Distinct()];

    /// <summary>The layer of the plugin.</summary>
    public NbdBackend Holder => _holder ?? throw new InvalidOperationException($"{owner} is not part of a chain.");

    /// <summary>
    /// What the plugin takes at once. The chains guard themselves at their doors; only the order of replies must be kept by
    /// whoever sends them.
    /// </summary>
    public ThreadModel ThreadModel
        => Chains.Any(chain => chain.ThreadModel == ThreadModel.SerializeRetirement)
            ? ThreadModel.SerializeRetirement
            : ThreadModel.Parallel;

    /// <summary>Checks a list of members, and copies it.</summary>
    public static NbdBackend[] Checked(string owner, IReadOnlyList<NbdBackend> members, string property)
    {
        ArgumentNullException.ThrowIfNull(members, property);
        if (members.Count == 0)
        {
            throw new ArgumentException($"{owner}: at least one chain must be given.", property);
        }
        var seen = new HashSet<NbdBackend>();
        foreach (NbdBackend member in members)
        {
            ArgumentNullException.ThrowIfNull(member, property);
            if (!seen.Add(member))
            {
                throw new ArgumentException($"{owner}: the chain of {member.Name} is given twice.", property);
            }
        }
        return [.. members];
    }

    public void Bind(NbdBackend holder) => _holder = holder;

    public async ValueTask StartAsync(CancellationToken cancellationToken)
    {
        foreach (NbdBackend chain in Chains)
        {
            await chain.AcquireAsync(Holder.LoggerFactory, host: false, cancellationToken).ConfigureAwait(false);
            _started.Add(chain);
        }
    }

    public async ValueTask PreconnectAsync(NbdConnection connection, bool readOnly, CancellationToken cancellationToken)
    {
        foreach (NbdBackend chain in Chains)
        {
            await InnerContext.PreconnectAsync(chain, connection, readOnly, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>Opens the default export of each chain, or none.</summary>
    public async ValueTask<InnerContext[]> OpenAllAsync(NbdOpenContext context, CancellationToken cancellationToken)
    {
        var opened = new List<InnerContext>();
        try
        {
            foreach (NbdBackend chain in Chains)
            {
                opened.Add(await InnerContext.OpenAsync(
                    chain, Holder, context.ReadOnly, "", context.Connection, cancellationToken).ConfigureAwait(false));
            }
            return [.. opened];
        }
        catch
        {
            await InnerContext.CloseAllAsync(opened).ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>Ends the use of the chains that were started.</summary>
    public async ValueTask EndAsync(CancellationToken quick)
    {
        for (int i = _started.Count - 1; i >= 0; i--)
        {
            await _started[i].ReleaseAsync(host: false, quick).ConfigureAwait(false);
        }
        _started.Clear();
    }

    /// <summary>Disposes of the chains that were never started.</summary>
    public async ValueTask DiscardAsync()
    {
        foreach (NbdBackend chain in Chains)
        {
            await chain.DiscardAsync().ConfigureAwait(false);
        }
    }
}
