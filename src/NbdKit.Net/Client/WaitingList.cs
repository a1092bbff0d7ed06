namespace NbdKit.Client;

/// <summary>The requests that wait for a place among those in flight, in the order of their calls.</summary>
internal sealed class WaitingList
{
    private PendingCommand? _first;
    private PendingCommand? _last;

    public bool IsEmpty => _first is null;

    public void Add(PendingCommand command)
    {
        command.WaitingBefore = _last;
        command.WaitingAfter = null;
        if (_last is null)
        {
            _first = command;
        }
        else
        {
            _last.WaitingAfter = command;
        }
        _last = command;
    }

    public PendingCommand? TakeFirst()
    {
        PendingCommand? command = _first;
        if (command is not null)
        {
            Remove(command);
        }
        return command;
    }

    /// <summary>The one that has waited longest, or null.</summary>
    public PendingCommand? Peek() => _first;

    public void Remove(PendingCommand command)
    {
        if (command.WaitingBefore is { } before)
        {
            before.WaitingAfter = command.WaitingAfter;
        }
        else
        {
            _first = command.WaitingAfter;
        }
        if (command.WaitingAfter is { } after)
        {
            after.WaitingBefore = command.WaitingBefore;
        }
        else
        {
            _last = command.WaitingBefore;
        }
        command.WaitingBefore = command.WaitingAfter = null;
    }
}
