using NbdKit.Plugins;

namespace NbdKit.Tests.Faults;

/// <summary>
/// Runs a history once, cuts the power again and again on its way, and judges what every cut left: the disks by themselves,
/// and what a stack that is opened over them reads.
/// </summary>
internal sealed class PowerCutRun
{
    private const string Fault = "the disk failed, as it was told to";
    private const int FaultDensity = 29;

    private static readonly TimeSpan Deadline = TimeSpan.FromSeconds(30);
    private static readonly byte[] FirstContent = Filled(PowerCutOracle.Initial, PowerCutHistory.Sectors);

    private readonly AsyncLocal<Held?> _current = new();
    private readonly SemaphoreSlim _cutting = new(1, 1);
    private readonly PowerCutHistory _history;
    private readonly int _density;
    private readonly PowercutPlugin[] _disks;
    private readonly byte[][] _images;
    private readonly byte[] _reopened = new byte[FirstContent.Length];
    private PowerCutOracle _oracle = null!;
    private PowerCutStep? _step;
    private bool _hasFaults;
    private int _passed;

    /// <param name="history">The history.</param>
    /// <param name="density">One in so many moments is cut.</param>
    public PowerCutRun(PowerCutHistory history, int density)
    {
        _history = history;
        _density = density;
        _hasFaults = history.HasFaults;
        _disks = [.. Enumerable.Range(0, history.Stack.Members).Select(_ => history.Stack.NewDisk([.. FirstContent]))];
        _images = [.. _disks.Select(_ => new byte[FirstContent.Length])];
    }

    /// <summary>How many states were judged.</summary>
    public int States { get; private set; }

    /// <summary>The first thing that was wrong, or null.</summary>
    public string? Violation { get; private set; }

    /// <summary>Whether the run did not come to its end, and what it left behind still runs.</summary>
    public bool Hangs { get; private set; }

    /// <summary>The disks that lose power.</summary>
    public IReadOnlyList<PowercutPlugin> Disks => _disks;

    /// <summary>Builds the stack and runs the history on it.</summary>
    public Task RunAsync() => RunOnAsync(_history.Stack.Build(_disks, () => new PowerCutTap(_history.Stack.Disk, PassAsync)));

    /// <summary>Runs the history on a stack that is over <see cref="Disks"/> in some way, and ends the stack.</summary>
    public async Task RunOnAsync(NbdBackend chain)
    {
        try
        {
            await RunAsync(chain).WaitAsync(Deadline);
        }
        catch (Exception e) when (e is TimeoutException or NbdException or InvalidOperationException or IOException)
        {
            Violation ??= $"step {_step}: {e}";
            if (e is TimeoutException)
            {
                Hangs = true;
                return;
            }
        }
        _step = null;
        await chain.DisposeAsync().AsTask().WaitAsync(Deadline);
    }

    /// <summary>A call passes between the stack and a disk.</summary>
    public async ValueTask PassAsync(CancellationToken cancellationToken)
    {
        if (_current.Value is { Left: > 0, WasHeld: false } held)
        {
            held.WasHeld = true;
            await held.Release.Task.WaitAsync(cancellationToken);
        }
        int moment = ((_step?.Id ?? 0) * 1000) + Interlocked.Increment(ref _passed);
        await CutSometimesAsync(moment);
        if (_hasFaults && new Random(HashCode(_history.Seed, -moment)).Next(FaultDensity) == 0)
        {
            throw new NbdException(NbdError.IoError, Fault);
        }
    }

    private static byte[] Filled(ushort value, int sectors)
    {
        byte[] bytes = new byte[sectors * PowerCutOracle.SectorSize];
        System.Runtime.InteropServices.MemoryMarshal.Cast<byte, ushort>(bytes.AsSpan()).Fill(value);
        return bytes;
    }

    private static ValueTask<NextContext> OpenAsync(NbdBackend chain, int context)
        => chain.OpenAsync(readOnly: context == PowerCutHistory.Contexts - 1);

    private async Task RunAsync(NbdBackend chain)
    {
        var contexts = new NextContext[PowerCutHistory.Contexts];
        for (int i = 0; i < contexts.Length; i++)
        {
            contexts[i] = await OpenAsync(chain, i);
        }
        _oracle = new PowerCutOracle(
            PowerCutHistory.Sectors, _history.Stack.KeepsPromises, contexts[0].Info.CanMultiConn);
        var pending = new List<(Task Task, Held Held)>();
        foreach (PowerCutStep step in _history.Steps)
        {
            if (Violation is not null)
            {
                break;
            }
            _step = step;
            if (step.Op == PowerCutOp.Reopen)
            {
                await EndAsync(pending);
                await CloseAsync(contexts[step.Context]);
                contexts[step.Context] = await OpenAsync(chain, step.Context);
            }
            else
            {
                var held = new Held { Left = step.Hold, IsGivenUp = step.IsGivenUp };
                Task task = TryAsync(step, contexts[step.Context], held);
                if (!task.IsCompleted && (step.Hold > 0 || pending.Count > 0))
                {
                    pending.Add((task, held));
                }
                else
                {
                    await task;
                    // What it left to be done in the background is not held up.
                    held.Release.TrySetResult();
                }
                await TickAsync(pending);
            }
            await CutSometimesAsync(step.Id * 1000);
        }
        await EndAsync(pending);
        _hasFaults = false;
        if (Violation is null)
        {
            await contexts[0].ReadAsync(_reopened, 0, default);
            Violation = _oracle.Judge(_reopened, long.MaxValue - 1, live: true) is { } wrong ? "read at the end: " + wrong : null;
        }
        foreach (NextContext context in contexts)
        {
            await context.DisposeAsync();
        }
    }

    /// <summary>Lets those go on whose time has come.</summary>
    private static async Task TickAsync(List<(Task Task, Held Held)> pending)
    {
        foreach ((_, Held held) in pending)
        {
            if (held.Left-- == 0)
            {
                held.End();
            }
        }
        if (pending.Count > 0 && pending.TrueForAll(one => one.Held.Left < 0))
        {
            await EndAsync(pending);
        }
    }

    private static async Task EndAsync(List<(Task Task, Held Held)> pending)
    {
        pending.ForEach(one => one.Held.End());
        foreach ((Task task, _) in pending)
        {
            await task;
        }
        pending.Clear();
    }

    private static async Task CloseAsync(NextContext context)
    {
        try
        {
            await context.DisposeAsync();
        }
        catch (NbdException e) when (e.Message == Fault)
        {
        }
    }

    /// <summary>Does a step. What fails as it was told to, or is given up, is never acknowledged.</summary>
    private async Task TryAsync(PowerCutStep step, NextContext context, Held held)
    {
        try
        {
            await DoAsync(step, context, held);
        }
        catch (NbdException e) when (e.Message == Fault)
        {
        }
        catch (OperationCanceledException) when (held.Token.IsCancellationRequested)
        {
        }
    }

    private async Task DoAsync(PowerCutStep step, NextContext context, Held held)
    {
        CancellationToken token = held.Token;
        _current.Value = held;
        NbdExportInfo info = context.Info;
        long offset = (long)step.Sector * PowerCutOracle.SectorSize;
        int length = step.Count * PowerCutOracle.SectorSize;
        switch (step.Op)
        {
            case PowerCutOp.Flush:
                if (info.CanFlush)
                {
                    long issued = _oracle.Now;
                    await context.FlushAsync(token);
                    _oracle.AcknowledgeFlush(context, issued);
                }
                return;
            case PowerCutOp.Read:
                await context.ReadAsync(new byte[length], offset, token);
                return;
            case PowerCutOp.Prefetch when info.CanCache != Support.None:
                await context.CacheAsync(offset, length, token);
                return;
        }
        if (!info.CanWrite || !step.IsChange)
        {
            return;
        }
        PowerCutStep asked = info.CanFua == Support.None ? step with { Flags = step.Flags & ~RequestFlags.Fua } : step;
        PowerCutChange change = _oracle.Issue(asked, context);
        await (step.Op switch
        {
            PowerCutOp.Write => context.WriteAsync(Filled(step.Id, step.Count), offset, asked.Flags, token),
            PowerCutOp.Zero => context.ZeroAsync(offset, length, asked.Flags, token),
            _ => context.TrimAsync(offset, length, asked.Flags, token),
        });
        _oracle.Acknowledge(change);
    }

    private ValueTask CutSometimesAsync(int moment)
    {
        int draw = new Random(HashCode(_history.Seed, moment)).Next();
        return draw % _density == 0 && Violation is null && _step is not null ? CutAsync(draw) : default;
    }

    private static int HashCode(int seed, int moment) => unchecked((seed * 486_187_739) + (moment * 16_777_619));

    private async ValueTask CutAsync(int seed)
    {
        await _cutting.WaitAsync();
        try
        {
            long since = _oracle.Now;
            for (int i = 0; i < _disks.Length; i++)
            {
                await using PowercutImage image = await _disks[i].CutAsync(unchecked(seed + i));
                await image.ReadAsync(_images[i], 0);
            }
            States++;
            for (int i = 0; i < _disks.Length; i++)
            {
                Judge(_images[i], since, seed, $"disk {i}");
            }
            NbdBackend again = _history.Stack.Build([.. _images.Select(image => new PowerCutMemory(image))], null);
            await using (again)
            {
                await using NextContext context = await again.OpenAsync();
                await context.ReadAsync(_reopened, 0, default);
            }
            Judge(_reopened, since, seed, "reopened");
        }
        finally
        {
            _cutting.Release();
        }
    }

    private void Judge(byte[] image, long since, int seed, string what)
    {
        string? wrong = _history.Stack.Kind == PowerCutStackKind.Cow && !image.AsSpan().SequenceEqual(FirstContent)
            ? "what is below was changed"
            : _oracle.Judge(image, since);
        if (wrong is not null)
        {
            Violation ??= $"{what}, cut {seed} at the moment {since} during or after step {_step?.Id}: {wrong}";
        }
    }

    /// <summary>A step that may be held up.</summary>
    private sealed class Held
    {
        private readonly CancellationTokenSource _giveUp = new();

        public TaskCompletionSource Release { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);

        public int Left { get; set; }

        public bool WasHeld { get; set; }

        public bool IsGivenUp { get; init; }

        public CancellationToken Token => _giveUp.Token;

        public void End()
        {
            if (IsGivenUp)
            {
                _giveUp.Cancel();
            }
            Release.TrySetResult();
        }
    }
}
