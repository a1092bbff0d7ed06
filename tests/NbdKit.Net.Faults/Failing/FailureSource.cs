using System.Text;
using NbdKit.Tests.Testing;
using NUnit.Framework;

namespace NbdKit.Faults.Failing;

/// <summary>Lets one callback fail, in one way and at one moment.</summary>
internal sealed class FailureSource(Callback callback, Failure failure, Moment moment)
{
    /// <summary>What messages must not let a client see.</summary>
    public const string Secret = "/var/secret/key";

    // Whatever waits for it goes on inside of SetResult: a plugin may do so.
    private readonly TaskCompletionSource _late = new();
    private readonly TaskCompletionSource _entered = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private volatile bool _isOff;
    private int _calls;

    public Failure Failure => failure;

    /// <summary>How often the callback was called.</summary>
    public int Calls => Volatile.Read(ref _calls);

    /// <summary>Completes when the callback is called.</summary>
    public Task Entered => _entered.Task;

    /// <summary>Whether what never completes is the first call alone.</summary>
    public bool HangsOnce { get; init; }

    /// <summary>Whether nothing goes wrong for now.</summary>
    public bool IsOff
    {
        get => _isOff;
        set => _isOff = value;
    }

    /// <summary>Lets go what is late.</summary>
    public void Release() => _late.TrySetResult();

    /// <summary>Whether a callback answers nonsense, if that is what goes wrong.</summary>
    public bool IsNonsense(Callback called) => called == callback && failure == Failure.Nonsense;

    /// <summary>Fails, if it is the turn of this callback.</summary>
    public ValueTask PassAsync(Callback called)
    {
        if (called != callback || IsOff)
        {
            return default;
        }
        bool hangs = Interlocked.Increment(ref _calls) == 1 || !HangsOnce;
        _entered.TrySetResult();
        return failure switch
        {
            Failure.Never => hangs ? NeverAsync() : default,
            Failure.Late => LateAsync(),
            _ when moment == Moment.AtOnce => throw Exception(),
            _ when moment == Moment.AfterAwait => ThrowLaterAsync(),
            _ => new(ElsewhereAsync(source => source.SetException(Exception()))),
        };
    }

    /// <summary>Fails if a client was told what it should not be.</summary>
    public static void CheckMessage(string message)
    {
        Assert.That(message, Does.Not.Contain(Secret), "what happens inside the host is its own business");
        Assert.That(message, Does.Not.Contain("   at ").And.Not.Contain("Exception"));
        Assert.That(Encoding.UTF8.GetByteCount(message), Is.LessThanOrEqualTo(4096));
    }

    private static Task ElsewhereAsync(Action<TaskCompletionSource> end)
    {
        var source = new TaskCompletionSource();
        new Thread(() => end(source)) { IsBackground = true }.Start();
        return source.Task;
    }

    private async ValueTask ThrowLaterAsync()
    {
        await Task.Yield();
        throw Exception();
    }

    private async ValueTask NeverAsync()
    {
        if (moment != Moment.AtOnce)
        {
            await Task.Yield();
        }
        await new TaskCompletionSource().Task;
    }

    private async ValueTask LateAsync()
    {
        if (moment == Moment.AfterAwait)
        {
            await Task.Yield();
        }
        await _late.Task;
        if (moment == Moment.OnAnotherThread)
        {
            await ElsewhereAsync(source => source.SetResult());
        }
    }

    private Exception Exception() => failure switch
    {
        Failure.DiskFull => new IOException(Secret, 28),
        Failure.Unauthorized => new UnauthorizedAccessException(Secret),
        Failure.NotSupported => new NotSupportedException(Secret),
        Failure.Disposed => new ObjectDisposedException(Secret),
        Failure.Cancelled => new OperationCanceledException(Secret),
        Failure.TimedOut => new TimeoutException(Secret),
        Failure.OutOfMemory => new OutOfMemoryException(Secret),
        Failure.NullReference => new NullReferenceException(Secret),
        Failure.Custom => new OddException(Secret + new string('x', 100_000)),
        Failure.UnknownError => new NbdException((NbdError)12345, "a number out of the blue"),
        Failure.LongMessage => new NbdException(NbdError.NoSpace, string.Concat(Enumerable.Repeat("\U0001f9ca\0", 20_000))),
        _ => new NbdException(0, ""),
    };

    /// <summary>The errors that a client may be told; 0 for success.</summary>
    public IReadOnlyList<uint> Expected => failure switch
    {
        // Zeroes that cannot be made are written.
        Failure.NotSupported when callback == Callback.Zero => [WireError.Ok, WireError.Inval],
        Failure.DiskFull or Failure.LongMessage => [WireError.NoSpc],
        Failure.Unauthorized => [WireError.Perm],
        Failure.NotSupported => [WireError.Inval],
        Failure.OutOfMemory => [WireError.NoMem],
        Failure.Nonsense when callback == Callback.ReadSparse => [WireError.Ok, WireError.Io, WireError.Inval],
        Failure.Nonsense when callback == Callback.Extents => [WireError.Io, WireError.Inval],
        Failure.Late => [WireError.Ok],
        _ => [WireError.Io],
    };

    /// <summary>Whose every member throws.</summary>
    private sealed class OddException(string message) : Exception(message)
    {
        public override string? StackTrace => throw new InvalidOperationException("There is no stack.");
    }
}
