using System.Diagnostics.Tracing;

namespace NbdKit.Tests.Testing;

/// <summary>Counts what is rented from the shared array pool and returned to it, as the runtime itself reports it.</summary>
internal sealed class RentedArrays : EventListener
{
    private const int Rented = 1;
    private const int Returned = 3;

    private readonly Lock _lock = new();
    private readonly Dictionary<int, int> _out = [];
    private readonly int _minimum;
    private EventSource? _source;
    private int _rents;

    /// <summary>Listens to arrays of at least so many bytes.</summary>
    public RentedArrays(int minimum)
    {
        _minimum = minimum;
        Begin();
    }

    /// <summary>Fails the test unless each array that was rented since the beginning was returned exactly once.</summary>
    public void AssertBalanced()
    {
        lock (_lock)
        {
            Assert.That(_out.Values, Is.All.Zero, "arrays rented less arrays returned, for each array");
            Assert.That(_rents, Is.Positive, "nothing was rented: the test tests nothing");
        }
    }

    protected override void OnEventSourceCreated(EventSource eventSource)
    {
        if (eventSource.Name == "System.Buffers.ArrayPoolEventSource")
        {
            _source = eventSource;
            Begin();
        }
    }

    protected override void OnEventWritten(EventWrittenEventArgs eventData)
    {
        // BufferRented and BufferReturned begin with the array's id and its size.
        if (eventData.EventId is not (Rented or Returned) || (int)eventData.Payload![1]! < _minimum)
        {
            return;
        }
        int id = (int)eventData.Payload[0]!;
        lock (_lock)
        {
            bool rented = eventData.EventId == Rented;
            if (rented || _out.ContainsKey(id))
            {
                _out[id] = _out.GetValueOrDefault(id) + (rented ? 1 : -1);
            }
            _rents += rented ? 1 : 0;
        }
    }

    // The base class may report sources before the constructor of this one has run.
    private void Begin()
    {
        if (_source is not null && _minimum > 0)
        {
            EnableEvents(_source, EventLevel.Verbose);
        }
    }
}
