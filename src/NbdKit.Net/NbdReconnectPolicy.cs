namespace NbdKit;

/// <summary>Whether and how a <see cref="NbdClientPool"/> replaces a connection that was lost.</summary>
/// <remarks>
/// <para>
/// Requests that change nothing are sent again on the new connection, and so are changes that never left the client. A write, trim
/// or zero that was sent and not answered fails, with <see cref="NbdClientException.IsOutcomeUnknown"/> set, unless
/// <see cref="ReplayChanges"/> says otherwise.
/// </para>
/// <para>
/// A server that died may have lost changes that it had acknowledged and not flushed. So the first flush after a connection was
/// lost fails, with <see cref="NbdClientException.IsOutcomeUnknown"/> set, if changes were acknowledged since the last flush that
/// succeeded: nobody can say that they are on stable storage. Who wants them there writes them again. Changes with
/// <see cref="RequestFlags.Fua"/> do not count.
/// </para>
/// </remarks>
public sealed record NbdReconnectPolicy
{
    /// <summary>How often it is tried to connect before the connection is given up for good. 5 by default.</summary>
    public int Attempts
    {
        get;
        init
        {
            ArgumentOutOfRangeException.ThrowIfLessThan(value, 1);
            field = value;
        }
    } = 5;

    /// <summary>The time before each attempt. One second by default.</summary>
    public TimeSpan Delay
    {
        get;
        init
        {
            ArgumentOutOfRangeException.ThrowIfLessThan(value, TimeSpan.Zero);
            field = value;
        }
    } = TimeSpan.FromSeconds(1);

    /// <summary>
    /// Whether writes, trims and zeroes whose outcome is unknown are sent again. Each of them may be carried out twice, which
    /// leaves the same bytes unless somebody else writes to the same place meanwhile: only for an export that nobody else changes.
    /// False by default.
    /// </summary>
    public bool ReplayChanges { get; init; }
}
