namespace NbdKit.Tests.Testing;

/// <summary>
/// What a <see cref="HookFilter"/> does in place of passing a callback on. A hook that is not set passes it on.
/// </summary>
internal sealed record Hooks
{
    public Func<ThreadModel, ThreadModel>? Model { get; init; }

    public Func<ThreadModel, CancellationToken, ValueTask>? Ready { get; init; }

    public Func<NbdBackend, CancellationToken, ValueTask>? Start { get; init; }

    public Func<NbdBackend, NbdConnection, CancellationToken, ValueTask>? Preconnect { get; init; }

    public Func<NbdBackend, ExportList, CancellationToken, ValueTask>? List { get; init; }

    public Func<NbdBackend, CancellationToken, ValueTask<string?>>? Default { get; init; }

    public Func<NbdContext, CancellationToken, ValueTask>? Open { get; init; }

    public Func<NbdContext, NextContext, CancellationToken, ValueTask>? Prepare { get; init; }

    public Func<NbdContext, NextContext, CancellationToken, ValueTask<NbdExportInfo>>? Info { get; init; }

    public Func<NbdContext, NextContext, Memory<byte>, long, CancellationToken, ValueTask>? Read { get; init; }

    public Func<NbdContext, NextContext, CancellationToken, ValueTask>? Finalize { get; init; }

    public Func<NbdContext, ValueTask>? Close { get; init; }

    public Func<NbdBackend, CancellationToken, ValueTask>? Cleanup { get; init; }

    public Action? Dispose { get; init; }
}
